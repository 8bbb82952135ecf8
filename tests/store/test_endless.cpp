// Endless streams: a window kept by append and reclaim goes on beyond all token numbers, in bounded
// memory, and attends as if the numbers had no end.

#include <doctest/doctest.h>

#include <sstream>
#include <vector>

#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/layout/dual.hpp"
#include "instinfer/layout/fused.hpp"
#include "instinfer/store/pages/memory.hpp"
#include "tests/support/plain_cache.hpp"
#include "tests/support/saved_engine.hpp"

namespace instinfer::test_endless {

namespace {

template <class Layout, class Format, class Store, class... Summary>
using cache_of =
    store::kv_cache<Format, Layout,
                    std::tuple<typename Summary::template state<typename Format::decoded>...>,
                    Store>;

// Keeps the newest `window` of `total` tokens, which come `chunk` at a time.
template <class Cache>
void run(Cache& cache, std::uint64_t total, std::uint32_t chunk, std::uint32_t window) {
  const sequence seq = cache.open();
  std::vector<page_id> written;
  std::uint64_t most_bytes = 0;
  std::uint64_t most_pages = 0;
  for (std::uint64_t tokens = 0; tokens < total;) {
    written.clear();
    cache.append_count(seq, 0, chunk, written);
    tokens += chunk;
    REQUIRE(cache.at(seq, 0).positions() == tokens);
    if (tokens > window) {
      cache.reclaim(seq, {.tokens_before = tokens - window});
    }
    REQUIRE(cache.at(seq, 0).tokens() - cache.at(seq, 0).first() ==
            std::min<std::uint64_t>(tokens, window));
    most_bytes = std::max(most_bytes, cache.at(seq, 0).resident_bytes());
    most_pages = std::max(most_pages, cache.pages().capacity_pages() - cache.pages().free_pages());
  }
  // Two pages a tile; a table is at most twice its live entries. Summaries take 132 bytes a token
  // for index keys, 32 for boxes, 24 for weights.
  const std::uint64_t tile = cache.tiles().v_by_token.tokens;
  CHECK(most_pages <= 2 * ((window + chunk) / tile + 2));
  CHECK(most_bytes <= 2 * sizeof(page_id) * most_pages + (window + chunk) * 200 + 65536);
  CHECK_THROWS_AS(cache.reclaim(seq, {.tokens_before = total + chunk}), bad_argument);
  CHECK_THROWS_AS(cache.append_count(seq, 0, std::uint64_t{1} << 31, written), address_overflow);
}

// AddressSanitizer takes more than 5 minutes for 20 million tokens. There, a twentieth of the
// addresses makes numbers begin anew as often in a twentieth of the tokens.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t share = 20;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
constexpr std::uint64_t share = 20;
#else
constexpr std::uint64_t share = 1;
#endif
#else
constexpr std::uint64_t share = 1;
#endif

}  // namespace

TEST_CASE(
    "endless: 20 million tokens, where token groups have 2^20 addresses and tiles 16 tokens") {
  using format = kv_format<fp16, 128>;
  cache_of<layout::token_indexed<>, format, store::ledger, attention::mean_value,
           attention::page_bounds<16>, attention::index_keys<128, 1024>, attention::heavy_hitters,
           attention::moving_weights, attention::wave_buffer>
      cache({.layers = 1, .q_heads = 1, .kv_heads = 1},
            {.bytes = 64 << 20, .address = address_codec({.token = (1 << 20) / share})}, 8);
  run(cache, 20'000'000 / share, 500, 1500);
}

TEST_CASE("endless: positions go beyond 2^32") {
  using format = kv_format<int4_groups<fp16>, 64>;
  cache_of<layout::token_indexed<65536>, format, store::ledger> cache(
      {.layers = 1, .q_heads = 1, .kv_heads = 1}, {.bytes = std::uint64_t{2} << 30}, 8);
  run(cache, (std::uint64_t{1} << 32) + (1 << 20), 1 << 20, 3 << 20);
}

// Addresses for 1024 tokens by rows of 32 or 63, and 8192 by dim, hold a window of 200.
TEST_CASE_TEMPLATE("endless: what is stored is what came, however often numbers begin anew", Cache,
                   cache_of<layout::token_indexed<>, kv_format<fp16, 64>, store::memory>,
                   cache_of<layout::dual<>, kv_format<fp16, 64>, store::memory>,
                   cache_of<layout::fused_dual<>, kv_format<fp16, 64>, store::memory>,
                   cache_of<layout::dual<>, kv_format<int8_pages<fp16>, 64>, store::memory>) {
  const double error = Cache::format::plain ? 0 : 1.0 / 254 + 0x1p-11;
  Cache cache({.layers = 1, .q_heads = 2, .kv_heads = 2},
              {.bytes = 8 << 20,
               .context_tokens = 256,
               .address = address_codec({.token = 256 * 8 / 63 + 8})},
              8);
  std::mt19937 random(1);
  const sequence seq = cache.open();
  test::plain_tokens<fp16> tokens;
  std::size_t reclaimed = 0;
  int renumbered = 0;
  for (int round = 0; round < 400; ++round) {
    const auto more = test::drawn_tokens<fp16>(random, random() % 90, 128);
    tokens.append(more);
    std::vector<page_id> written;
    const std::uint64_t base = cache.at(seq, 0).base();
    cache.append(seq, 0, more.joined(more.k), more.joined(more.v), written);
    renumbered += cache.at(seq, 0).base() != base ? 1 : 0;
    CHECK(cache.at(seq, 0).positions() == tokens.size());
    if (tokens.size() > 200) {
      reclaimed = tokens.size() - 200;
      cache.reclaim(seq, {.tokens_before = reclaimed});
    }
    if (round % 7 == 0) {
      test::check_stored(cache, seq, 0, reclaimed, tokens, error, 5);
    }
  }
  CHECK(renumbered >= 5);
  CHECK(tokens.size() > 15'000);
}

TEST_CASE("endless: consecutive pages go round the channels also where numbers begin anew") {
  cache_of<layout::token_indexed<>, kv_format<fp16, 64>, store::ledger> cache(
      {.layers = 1, .q_heads = 1, .kv_heads = 1},
      {.bytes = 8 << 20, .address = address_codec({.token = 25})}, 8);
  const sequence seq = cache.open();
  std::uint32_t expected = 0;
  for (std::uint64_t tokens = 32; tokens < 32 * 500; tokens += 32) {
    std::vector<page_id> written;
    cache.append_count(seq, 0, 32, written);
    CHECK(channel_of(written[0], 8) == expected);  // K; V is half a round further
    expected = (expected + 1) % 8;
    if (tokens > 320) {
      cache.reclaim(seq, {.tokens_before = tokens - 320});
    }
  }
  CHECK(cache.at(seq, 0).base() > 32 * 400);
}

namespace {

using test_cache_file::any_method;
using test_cache_file::decoder;
using test_cache_file::engine_type;

// A window of about 128 tokens on an engine whose addresses hold 256 tokens, and on one whose
// numbers do not end: the same bits and receipts.
void check_method(const any_method& method) {
  const model_shape& shape = test_cache_file::shape;
  engine_type endless(
      shape, {.bytes = 4 << 20, .context_tokens = 64, .address = address_codec({.token = 64})},
      method);
  engine_type numbered(shape, test_cache_file::room, method);
  decoder a(endless, endless.open(), 1);
  decoder b(numbered, numbered.open(), 1);
  for (int round = 0; round < 30; ++round) {
    CAPTURE(round);
    for (int i = 0; i < 6; ++i) {
      REQUIRE(a.step() == b.step());
    }
    for (decoder* d : {&a, &b}) {
      d->append(0, 23);
      d->append(1, 23);
      d->engine.truncate(d->seq, d->engine.positions(d->seq, 0) - 5);
      const std::uint64_t positions = d->engine.positions(d->seq, 1);
      d->engine.reclaim(d->seq,
                        {.tokens_before = positions - std::min<std::uint64_t>(positions, 128)});
    }
    CHECK(endless.positions(a.seq, 0) == 24u * (static_cast<unsigned>(round) + 1));
    if (round % 10 == 5) {  // its file keeps the position
      std::istringstream file(test_cache_file::saved(endless, a.seq));
      endless.reclaim(a.seq);
      a.seq = endless.open();
      endless.load(a.seq, file, "model A");
      CHECK(endless.positions(a.seq, 0) == numbered.positions(b.seq, 0));
    }
  }
  CHECK(endless.cache().at(a.seq, 1).base() > 400);
  CHECK(numbered.cache().at(b.seq, 1).base() == 0);
  // What is forgotten is freed when it is half, at other times on the two.
  CHECK(endless.cache().at(a.seq, 1).resident_bytes() <=
        2 * numbered.cache().at(b.seq, 1).resident_bytes());
}

}  // namespace

TEST_CASE("endless: an append that is refused leaves the numbers as they were") {
  // 96 tokens have numbers, in tiles of 32; the drive has 8 pages.
  cache_of<layout::token_indexed<>, kv_format<fp16, 64>, store::ledger, attention::page_bounds<16>>
      cache({.layers = 1, .q_heads = 1, .kv_heads = 1},
            {.bytes = 8 * 4096, .address = address_codec({.token = 3})}, 8);
  std::vector<page_id> written;
  const sequence other = cache.open();
  cache.append_count(other, 0, 64, written);
  const sequence seq = cache.open();
  cache.append_count(seq, 0, 90, written);
  cache.reclaim(seq, {.tokens_before = 50});
  cache.append_count(other, 0, 32, written);  // now all pages are taken
  CHECK_THROWS_AS(cache.append_count(seq, 0, 32, written), drive_full);
  CHECK_THROWS_AS(cache.append_count(seq, 0, 1000, written), address_overflow);
  CHECK(cache.at(seq, 0).base() == 0);
  CHECK(cache.at(seq, 0).first() == 50);
  cache.reclaim(other);
  cache.append_count(seq, 0, 32, written);
  CHECK(cache.at(seq, 0).base() == 32);
  CHECK(cache.at(seq, 0).first() == 18);
  CHECK(cache.at(seq, 0).positions() == 122);
}

TEST_CASE("endless: every method goes on as if numbers had no end") {
  SUBCASE("sparf") { check_method({attention::sparf{}}); }
  SUBCASE("quest") {
    check_method({attention::basic_quest<16>{.keep_pages = 0.3, .dense_layers = 0}});
  }
  SUBCASE("h2o") { check_method({attention::h2o{.heavy = 40, .recent = 40}}); }
  SUBCASE("hgca") {
    check_method({attention::hgca{
        .window = 64, .block = 1, .salience = {.beta = 0.3, .least_kept = 1}, .judge_every = 9}});
  }
  SUBCASE("misa") {
    check_method({attention::basic_misa<64, 32>{.keep_tokens = budget::at_most(50)}});
  }
}

// Indexed tokens cannot be reclaimed, so an index is built over a window once, and stays.
TEST_CASE("endless: an index built late moves with the numbers") {
  const auto play = [](std::uint64_t token_length) {
    engine_type engine(
        test_cache_file::shape,
        {.bytes = 4 << 20, .context_tokens = 64, .address = address_codec({.token = token_length})},
        {attention::retro_infer{.window = 16,
                                .retrieved = 0.1,
                                .estimated = 0.3,
                                .cluster_tokens = 8,
                                .segment_tokens = 64,
                                .update_tokens = 32}});
    decoder d(engine, engine.open(), 1);
    d.append(0, 200);
    d.append(1, 200);
    engine.reclaim(d.seq, {.tokens_before = 120});
    engine.build(d.seq, 0);
    engine.build(d.seq, 1);
    std::vector<std::vector<float>> out;
    for (int i = 0; i < 100; ++i) {
      out.push_back(d.step());
      const auto& layer = engine.cache().at(d.seq, 1);
      const auto& index =
          std::get<attention::cluster_index::state<kv_format<fp16, 64>>>(layer.summaries(1));
      CHECK(layer.base() + index.indexed().first == 124);  // behind 4 sinks
      for (std::uint32_t t = index.indexed().first; t < index.indexed().last; ++t) {
        CHECK(index.position(t) >= index.indexed().first);
        CHECK(index.position(t) < index.indexed().last);
      }
      const attention::wave_buffer::state<kv_format<fp16, 64>>& buffer =
          std::get<attention::wave_buffer::state<kv_format<fp16, 64>>>(layer.summaries(1));
      out.push_back(
          {static_cast<float>(buffer.blocks().hits()), static_cast<float>(buffer.blocks().used())});
    }
    return std::pair{out, engine.cache().at(d.seq, 1).base()};
  };
  const auto [endless, base] = play(64);
  CHECK(base == 96);
  CHECK(play(1 << 20).first == endless);
}

}  // namespace instinfer::test_endless
