// Taking back the newest tokens: what stays lies and goes on as if the rest had never come, in
// every layout, with codecs, and for every summary that can; others refuse and change nothing.

#include <doctest/doctest.h>

#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/layout/dual.hpp"
#include "instinfer/layout/fused.hpp"
#include "instinfer/store/pages/memory.hpp"
#include "instinfer/store/sequences/cache_file.hpp"
#include "tests/paths/odd_layouts.hpp"
#include "tests/support/plain_cache.hpp"
#include "tests/support/refusal.hpp"
#include "tests/support/saved_engine.hpp"

namespace instinfer::test_truncate {

namespace {

using test::append;
using test::saved;

using fp16_format = kv_format<fp16, 64>;
constexpr model_shape shape{.layers = 2, .q_heads = 2, .kv_heads = 2};
constexpr std::size_t row = 2 * 64;
const store::capacity room{.bytes = 32 << 20, .context_tokens = 256};

template <class Layout, class Format = fp16_format, class... State>
using cache_of = store::kv_cache<Format, Layout, std::tuple<State...>, store::memory>;
template <class S>
using kept = typename S::template state<fp16_format>;

template <class Cache>
traffic truncate(Cache& cache, sequence seq, const store::truncate_range& range) {
  std::vector<page_id> read;
  return cache.truncate(seq, range, read, [](auto) {});
}

// Pages of all heads in which `have` tokens, cut after `tokens`, cut a sealed tile.
template <class Cache>
std::uint64_t cut_pages(const Cache& cache, std::size_t have, std::size_t tokens) {
  std::uint64_t pages = 0;
  for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
    if (const layout::tile& tile = cache.tiles().of(s); cache.tiles().has_pages(s)) {
      const bool sealed = tokens / tile.tokens < have / tile.tokens;
      pages += sealed && tokens % tile.tokens > 0 ? 2 * (64 / tile.dims) : 0;
    }
  }
  return pages;
}

// By their files; where pages have gaps between elements, a file has what was there before.
template <class Cache>
bool alike(const Cache& cache, sequence a, sequence b) {
  const layout::tile& tile = cache.tiles().v_by_token;
  return tile.elements() != tile.tokens * tile.dims || saved(cache, a) == saved(cache, b);
}

}  // namespace

// The file of a sequence has all its pages, open pages, counts and summaries.
TEST_CASE_TEMPLATE("truncate: a sequence is as if the tokens had never come", Cache,
                   cache_of<layout::token_indexed<>>, cache_of<layout::dim_indexed<>>,
                   cache_of<layout::dual<>>, cache_of<layout::fused<>>,
                   cache_of<layout::fused_dual<>>, cache_of<test::scattered>,
                   cache_of<layout::dual<>, fp16_format, kept<attention::mean_value>,
                            kept<attention::page_bounds<16>>, kept<attention::cluster_index>,
                            kept<attention::cluster_tree>, kept<attention::wave_buffer>,
                            kept<attention::heavy_hitters>, kept<attention::moving_weights>>) {
  Cache cache(shape, room, 8);
  std::mt19937 random(1);
  for (const std::size_t have : {1u, 33u, 700u, 1024u}) {
    for (const std::size_t stay : {0u, 1u, 15u, 32u, 33u, 500u, 512u, 699u, 1000u, 1024u}) {
      if (stay > have) {
        continue;
      }
      CAPTURE(have);
      CAPTURE(stay);
      const std::uint64_t free_pages = cache.pages().free_pages();
      auto tokens = test::drawn_tokens<fp16>(random, have, row);
      const sequence seq = cache.open();
      append(cache, seq, 0, tokens);
      append(cache, seq, 1, tokens);
      const traffic moved =
          truncate(cache, seq, {.end_layer = 1, .tokens = static_cast<std::uint32_t>(stay)});
      if (std::tuple_size_v<typename Cache::summary_states> == 0) {
        CHECK(moved.pages_read == cut_pages(cache, have, stay));
        CHECK(moved.array_bytes == 4096 * moved.pages_read);
      }
      CHECK(moved.pages_written == 0);
      test::check_stored(cache, seq, 1, 0, tokens, 0, 13);
      truncate(cache, seq, {.tokens = static_cast<std::uint32_t>(stay)});
      tokens.truncate(stay);
      test::check_stored(cache, seq, 0, 0, tokens, 0, 3);

      const sequence fresh = cache.open();
      append(cache, fresh, 0, tokens);
      append(cache, fresh, 1, tokens);
      CHECK(alike(cache, seq, fresh));
      // It goes on alike, through the next page.
      const auto more = test::drawn_tokens<fp16>(random, 45, row);
      tokens.append(more);
      for (const sequence s : {seq, fresh}) {
        append(cache, s, 0, more);
        append(cache, s, 1, more);
      }
      CHECK(alike(cache, seq, fresh));
      test::check_stored(cache, seq, 1, 0, tokens, 0, 3);
      cache.reclaim(seq);
      cache.reclaim(fresh);
      CHECK(cache.pages().free_pages() == free_pages);
      CHECK(cache.buffered_bytes() == 0);
    }
  }
}

TEST_CASE("truncate: after old tokens went, up to the oldest live one") {
  using cache_type = cache_of<layout::dual<>, fp16_format, kept<attention::mean_value>,
                              kept<attention::page_bounds<16>>>;
  cache_type cache(shape, room, 8);
  std::mt19937 random(2);
  for (const std::uint32_t first : {5u, 32u, 600u, 690u}) {
    for (const std::uint32_t stay : {690u, 691u, 695u, 699u}) {
      CAPTURE(first);
      CAPTURE(stay);
      const sequence seq = cache.open();
      auto tokens = test::drawn_tokens<fp16>(random, 700, row);
      append(cache, seq, 0, tokens);
      cache.reclaim(seq, {.end_layer = 1, .tokens_before = first});
      const std::string before = saved(cache, seq);
      CHECK(test::says(test::refusal_of<bad_argument>(
                           [&] { truncate(cache, seq, {.end_layer = 1, .tokens = first - 1}); }),
                       "layer 0 has tokens at positions [" + std::to_string(first) +
                           ", 700), cannot keep the first " + std::to_string(first - 1)));
      CHECK(saved(cache, seq) == before);
      truncate(cache, seq, {.end_layer = 1, .tokens = stay});
      tokens.truncate(stay);
      const auto more = test::drawn_tokens<fp16>(random, 30, row);
      append(cache, seq, 0, more);
      tokens.append(more);
      test::check_stored(cache, seq, 0, first, tokens);
      for (std::uint32_t h = 0; h < 2; ++h) {
        const auto& states = cache.at(seq, 0).summaries(h);
        const auto& mean = std::get<0>(states);
        const auto& boxes = std::get<1>(states);
        for (std::size_t i = 0; i < 64; ++i) {
          double sum = 0;
          for (std::size_t t = first; t < tokens.size(); ++t) {
            sum += double{to_float(tokens.v[t][h * 64 + i])};
          }
          REQUIRE(mean[i] == sum / static_cast<double>(tokens.size() - first));
        }
        // The box of a group that was cut is that of its live tokens; later ones too.
        for (std::uint32_t c = stay / 16; c <= (tokens.size() - 1) / 16; ++c) {
          std::vector<float> scratch(128);
          const auto box = boxes.row(c, scratch);
          for (std::size_t i = 0; i < 64; ++i) {
            float largest = -2, smallest = 2;
            for (std::size_t t = std::max(c * 16, first);
                 t < std::min<std::size_t>((c + 1) * 16, tokens.size()); ++t) {
              largest = std::max(largest, to_float(tokens.k[t][h * 64 + i]));
              smallest = std::min(smallest, to_float(tokens.k[t][h * 64 + i]));
            }
            REQUIRE(box[i] == largest);
            REQUIRE(box[64 + i] == smallest);
          }
        }
      }
      cache.reclaim(seq);
    }
  }
}

// A token that stays of a cut page is rounded once more when its page is full again. Bounds from
// docs/storage.md: int8 half a step of 1/127 of the largest magnitude, here at most 1.01; int4 half
// a step of 1/15 of the range, and the fp16 of step and minimum; decoding rounds to fp16.
TEST_CASE_TEMPLATE("truncate: with a codec each cut adds at most one rounding", Cache,
                   cache_of<layout::dual<>, kv_format<int8_pages<fp16>, 64>>,
                   cache_of<layout::dual<>, kv_format<int4_groups<fp16>, 64>>) {
  const bool int8 = std::string(Cache::format::codec::name) == "int8";
  const double once = (int8 ? 1.01 / 254 : 2.1 / 30 + 17 * 0x1p-11) + 0x1p-11;
  Cache cache(shape, room, 8);
  const sequence seq = cache.open();
  std::mt19937 random(3);
  auto tokens = test::drawn_tokens<fp16>(random, 3000, row);
  append(cache, seq, 0, tokens);
  test::check_stored(cache, seq, 0, 0, tokens, once, 7);
  for (int cut = 2; cut <= 6; ++cut) {
    // Within the same pages each time, so that their first tokens are rounded again.
    tokens.truncate(2900 - static_cast<std::size_t>(cut));
    truncate(cache, seq, {.end_layer = 1, .tokens = static_cast<std::uint32_t>(tokens.size())});
    test::check_stored(cache, seq, 0, 0, tokens, (cut - 1) * once, 7);
    const auto more = test::drawn_tokens<fp16>(random, 3000 - tokens.size(), row);
    append(cache, seq, 0, more);
    tokens.append(more);
    test::check_stored(cache, seq, 0, 0, tokens, cut * once, 7);
  }
}

// 127 steps of a page whose largest value stays: fp16 keeps them apart.
TEST_CASE("truncate: int8 codes stay where the largest value of the page stays") {
  using cache_type = cache_of<layout::token_indexed<>, kv_format<int8_pages<fp16>, 64>>;
  cache_type cache(shape, room, 8);
  std::mt19937 random(4);
  auto tokens = test::drawn_tokens<fp16>(random, 126, row);
  for (auto* x : {&tokens.k, &tokens.v}) {
    for (const std::size_t t : {0u, 63u}) {  // the first token of each page, both heads
      (*x)[t][0] = (*x)[t][64] = from_float<fp16>(1.0f);
    }
  }
  const sequence seq = cache.open();
  append(cache, seq, 0, tokens);
  const std::string before = saved(cache, seq);
  for (const std::uint32_t stay : {1u, 30u, 62u, 64u, 100u, 125u}) {
    truncate(cache, seq, {.end_layer = 1, .tokens = stay});
    append(cache, seq, 0, tokens.part(stay, 126));
    CHECK(saved(cache, seq) == before);
  }
}

TEST_CASE("truncate: the range of a codec holds what decoding gives") {
  // The steps of a group from -65504 to 65504 end at 65536, beyond fp16.
  using cache_type = cache_of<layout::token_indexed<>, kv_format<int4_groups<fp16>, 64>>;
  cache_type cache(shape, room, 8);
  auto tokens = test::plain_tokens<fp16>{};
  for (int t = 0; t < 120; ++t) {
    std::vector<fp16> x(row);
    for (std::size_t i = 0; i < row; ++i) {
      x[i] = from_float<fp16>(i % 2 == 0 ? 65504.0f : -65504.0f);
    }
    tokens.k.push_back(x);
    tokens.v.push_back(x);
  }
  const sequence seq = cache.open();
  append(cache, seq, 0, tokens);
  truncate(cache, seq, {.end_layer = 1, .tokens = 50});
  tokens.truncate(50);
  test::check_stored(cache, seq, 0, 0, tokens, 32);
}

TEST_CASE("truncate: the mean of V follows what a codec makes of it") {
  using format = kv_format<int8_pages<fp16>, 64>;
  using cache_type =
      cache_of<layout::token_indexed<>, format, attention::mean_value::state<format::decoded>>;
  cache_type cache(shape, room, 8);
  std::mt19937 random(5);
  const sequence seq = cache.open();
  for (int round = 0; round < 40; ++round) {
    append(cache, seq, 0, test::drawn_tokens<fp16>(random, random() % 200, row));
    const std::uint32_t have = cache.at(seq, 0).tokens();
    truncate(cache, seq,
             {.end_layer = 1,
              .tokens = have - std::min(have, static_cast<std::uint32_t>(random() % 150))});
    const layout::head_pages head = cache.at(seq, 0).head(1);
    const cache_type::page_views pages(cache, head);
    const std::uint32_t tile = head.tiles.v_by_token.tokens;
    for (std::uint32_t i = 0; i < 64; i += 9) {
      double sum = 0;
      for (std::uint32_t t = 0; t < head.tokens; ++t) {
        const bool open = t >= head.of(stream::v_by_token).sealed_tokens;
        sum += double{pages({.kind = stream::v_by_token,
                             .token_tile = t / tile,
                             .page = open ? no_page : head.of(stream::v_by_token).page(t / tile, 0),
                             .buffered = open,
                             .tokens = {},
                             .dims = {}})(t % tile, i)};
      }
      CHECK(std::get<0>(cache.at(seq, 0).summaries(1))[i] * head.tokens ==
            doctest::Approx(sum).epsilon(1e-9));
    }
  }
}

TEST_CASE("truncate: what is asked for must be there, and the group buffer have room") {
  using cache_type = cache_of<layout::token_indexed<>>;
  // Room for 20 tokens of a tile of 32, K and V of two heads; those need room for the whole tile.
  const std::uint64_t tile_bytes = 2 * 2 * 4096;
  cache_type cache(shape, {.bytes = 32 << 20, .context_tokens = 256, .buffer_bytes = tile_bytes},
                   8);
  std::mt19937 random(6);
  const sequence seq = cache.open();
  const auto tokens = test::drawn_tokens<fp16>(random, 64, row);
  append(cache, seq, 0, tokens);
  append(cache, seq, 1, tokens.part(0, 40));
  const std::string before = saved(cache, seq);
  const std::uint64_t buffered = cache.buffered_bytes();
  CHECK(test::says(test::refusal_of<bad_argument>([&] { truncate(cache, seq, {.tokens = 41}); }),
                   "truncate: layer 1 has tokens at positions [0, 40), cannot keep the first 41"));
  CHECK(test::says(test::refusal_of<bad_argument>([&] {
                     truncate(cache, seq, {.first_layer = 1, .end_layer = 3, .tokens = 1});
                   }),
                   "truncate: layers [1, 3) must be one layer or more within [0, 2)"));
  CHECK(test::says(
      test::refusal_of<drive_full>([&] { truncate(cache, seq, {.end_layer = 1, .tokens = 20}); }),
      "truncate: opening the pages at token 20 needs 16384 bytes of the group buffer"));
  CHECK_THROWS_AS(truncate(cache, sequence{}, {.tokens = 1}), unknown_sequence);
  CHECK(saved(cache, seq) == before);
  CHECK(cache.buffered_bytes() == buffered);
  truncate(cache, seq, {.end_layer = 1, .tokens = 32});  // a boundary needs no room
  truncate(cache, seq, {.end_layer = 1, .tokens = 32});
  CHECK(cache.at(seq, 0).tokens() == 32);
  truncate(cache, seq, {.tokens = 0});
  CHECK(cache.at(seq, 1).tokens() == 0);
  truncate(cache, seq, {.tokens = 0});
}

namespace {

using test_cache_file::any_method;
using test_cache_file::decoder;
using test_cache_file::engine_type;

// Of the engine that keeps every summary.
std::string refused(engine_type& engine, sequence seq, std::uint32_t tokens) {
  const std::string before = test_cache_file::saved(engine, seq);
  const std::string why = test::refusal_of<bad_argument>([&] { engine.truncate(seq, tokens); });
  CHECK(test_cache_file::saved(engine, seq) == before);
  return why;
}

}  // namespace

// Boxes of 16 tokens, tiles of 4: no tile is cut at 24, but the second box is.
TEST_CASE("truncate: reads the tokens that a cut group is summarised again from") {
  engine_type engine(test_cache_file::shape, test_cache_file::room, {attention::sparf{}});
  decoder d(engine, engine.open(), 1);
  d.with_index_keys = false;
  d.append(0, 40);
  const traffic read = engine.truncate(d.seq, {.end_layer = 1, .tokens = 24}).traffic;
  // Of each head: K of tokens 16 to 23; V of these, and of those that leave the mean; a row of
  // pages of K by dim.
  CHECK(read.pages_read == 2 * (2 + 6 + 8));
}

TEST_CASE("truncate: methods that learn take back what no query has seen, also after a load") {
  const auto check = [](const any_method& method) {
    engine_type engine(test_cache_file::shape, test_cache_file::room, method);
    decoder d(engine, engine.open(), 1);
    d.with_index_keys = false;
    d.append(0, 96);
    d.append(1, 96);
    for (int i = 0; i < 32; ++i) {
      d.step();
    }
    const std::string before = test_cache_file::saved(engine, d.seq);
    d.append(0, 9);
    d.append(1, 20);
    std::istringstream file(test_cache_file::saved(engine, d.seq));
    const sequence loaded = engine.open();
    engine.load(loaded, file, "model A");
    for (const sequence seq : {d.seq, loaded}) {
      CHECK(test::says(refused(engine, seq, 127), "layer 0 cannot go back to 127 tokens"));
      CHECK(engine.truncate(seq, 128).traffic.pages_written == 0);
      CHECK(engine.positions(seq, 1) == 128);
      CHECK(test_cache_file::saved(engine, seq) == before);
      d.seq = seq;
      d.step();
    }
  };
  check({attention::h2o{.heavy = 40, .recent = 40}});
  check({attention::hgca{.window = 64, .block = 1, .salience = {.beta = 0.3, .least_kept = 1}}});
}

TEST_CASE(
    "truncate: indexed tokens stay or go together, and the index and the block cache follow") {
  engine_type engine(test_cache_file::shape, test_cache_file::room,
                     {attention::retro_infer{.window = 16,
                                             .retrieved = 0.1,
                                             .estimated = 0.3,
                                             .cluster_tokens = 8,
                                             .segment_tokens = 128,
                                             .update_tokens = 32}});
  decoder d(engine, engine.open(), 1);
  d.append(0, 320);
  d.append(1, 320);
  const std::string before = test_cache_file::saved(engine, d.seq);
  engine.build(d.seq, 1);
  const auto& index = test_cache_file::state_of<attention::cluster_index>(engine, d.seq);
  const auto& blocks = test_cache_file::state_of<attention::wave_buffer>(engine, d.seq).blocks();
  const index_run indexed = index.indexed();
  REQUIRE(indexed.size() > 0);
  REQUIRE(indexed.last < 320);
  for (int i = 0; i < 3; ++i) {
    d.step();
  }
  REQUIRE(blocks.used() > 0);
  CHECK(test::says(refused(engine, d.seq, indexed.last - 1),
                   "layer 1 cannot go back to " + std::to_string(indexed.last - 1) + " tokens"));
  engine.truncate(d.seq, indexed.last);
  CHECK(index.indexed() == indexed);
  const std::uint32_t tile = engine.cache().tiles().k_by_token.tokens;
  for (std::uint32_t b = indexed.last / tile; b < blocks.blocks(); ++b) {
    CHECK_FALSE(blocks.contains(b));
  }
  engine.truncate(d.seq, indexed.first);
  CHECK(index.chunks() == 0);
  CHECK(test_cache_file::state_of<attention::cluster_tree>(engine, d.seq).chunks() == 0);
  CHECK(blocks.used() == 0);
  // As a fresh one, with the same tokens again.
  engine.truncate(d.seq, 0);
  decoder again(engine, d.seq, 1);
  again.append(0, 320);
  again.append(1, 320);
  CHECK(test_cache_file::saved(engine, d.seq) == before);
}

}  // namespace instinfer::test_truncate
