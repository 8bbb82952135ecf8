// Fused rows (K and V of a token in one page) and latent rows (V is the first dims of K's rows):
// results are plain attention, pages count once, and commands do what they do with separate rows.

#include <doctest/doctest.h>

#include <set>
#include <sstream>

#include "instinfer/codec/dim_scales.hpp"
#include "instinfer/codec/fp8_latent_rows.hpp"
#include "instinfer/flash/engine.hpp"
#include "instinfer/layout/fused.hpp"
#include "instinfer/methods/quest.hpp"
#include "instinfer/methods/squeezed.hpp"
#include "instinfer/methods/top_values.hpp"
#include "instinfer/store/layer/l2p_footprint.hpp"
#include "suite.hpp"
#include "tests/support/plain_attention.hpp"

using namespace instinfer;
using test::largest_difference;
using test::random_cache;

namespace {

template <class Layout, class Policy = attention::dense>
using in_drive = design<Policy, Layout, flash::instcsd, transfer::in_storage>;
using fused = in_drive<layout::fused<>>;
using separate = in_drive<layout::token_indexed<>>;
using rows_of_64 = kv_format<fp16, 64>;
using latent = latent_format<bf16, 96, 64>;
using deepseek = latent_format<fp8_latent_rows, 576, 512>;

// Random values; for DeepSeek's rows such that these hold exactly.
template <class Format>
random_cache<Format> drawn(unsigned seed, int tokens, int q_heads, int kv_heads) {
  random_cache<Format> data(seed, tokens, q_heads, kv_heads);
  for (std::size_t i = 0; std::is_same_v<Format, deepseek> && i < data.k.size(); ++i) {
    const float x = std::clamp(std::nearbyint(8 * to_float(data.k[i])), -15.0f, 15.0f) / 8;
    data.k[i] = from_float<typename Format::element>(x);
  }
  return data;
}

// V of tokens [first, last), as append takes it and as attention uses it. V of latent rows is the
// first dims of K.
template <class Format>
auto appended_v(const random_cache<Format>& data, int first, int last) {
  return Format::latent ? std::span<const typename Format::element>() : data.v_tokens(first, last);
}
template <class Format>
std::vector<typename Format::element> attended_v(const random_cache<Format>& data) {
  std::vector<typename Format::element> v = data.v;
  for (std::size_t i = 0; Format::latent && i < v.size(); ++i) {
    v[i] = data.k[i / Format::v_dim * Format::k_dim + i % Format::v_dim];
  }
  return v;
}

template <class Engine>
struct filled {
  using format = typename Engine::format;
  random_cache<format> data;
  Engine engine;
  sequence seq;

  filled(unsigned seed, int tokens, int group, int piece = 1000, int kv_heads = 2,
         const logit_rule& rule = {})
      : data{drawn<format>(seed, tokens, kv_heads * group, kv_heads)},
        engine{{.layers = 1, .q_heads = kv_heads * group, .kv_heads = kv_heads},
               test::small_capacity,
               {},
               rule},
        seq{engine.open()} {
    append(0, tokens, piece);
  }
  void append(int first, int last, int piece) {
    for (int t = first; t < last; t += piece) {
      const int end = std::min(last, t + piece);
      engine.append(seq, 0, data.k_tokens(t, end), appended_v(data, t, end));
    }
  }
  std::vector<float> attend() {
    std::vector<float> out(static_cast<std::size_t>(data.q_heads * format::v_dim), -1.0f);
    moved = engine.attend(seq, 0, data.q, out).traffic;
    return out;
  }
  std::vector<double> expected(int first = 0, std::function<double(int, int)> bias = {}) const {
    const auto v = attended_v(data);
    const auto from = static_cast<std::size_t>(first * data.kv_heads);
    const test::plain_attention plain{data.kv_heads, data.q_heads, format::k_dim, format::v_dim,
                                      std::move(bias)};
    return plain(std::span(data.k).subspan(from * format::k_dim),
                 std::span(v).subspan(from * format::v_dim), std::span<const float>(data.q),
                 data.tokens - first);
  }
  traffic moved;
};

// Dense attention is plain attention, however the tokens came.
template <class Engine>
void check_dense(double bound) {
  for (const int tokens : {1, 3, 17, 100, 333}) {
    for (const int piece : {1000, 1, 7}) {
      for (const int group : {1, 5}) {
        CAPTURE(tokens);
        CAPTURE(piece);
        CAPTURE(group);
        filled<Engine> cache(71, tokens, group, piece);
        CHECK(largest_difference(cache.attend(), cache.expected()) < bound);
      }
    }
  }
}

}  // namespace

TEST_CASE("fused rows: dense attention is plain attention") {
  check_dense<cpu::engine<fused, rows_of_64>>(1e-5);
  check_dense<reference::engine<fused, rows_of_64>>(1e-5);
}
TEST_CASE("fused rows of a codec: dense attention is plain attention") {
  // A step is at most 2 * 10 / 254, so a value of V is off by 0.04.
  check_dense<cpu::engine<fused, kv_format<int8_pages<fp16>, 64>>>(0.3);
  check_dense<cpu::engine<fused, kv_format<int8_dims<fp16>, 64>>>(0.3);
}
TEST_CASE("latent rows: dense attention is plain attention, V being the first dims of K") {
  check_dense<cpu::engine<separate, latent>>(1e-5);
  check_dense<reference::engine<separate, latent>>(1e-5);
  check_dense<cpu::engine<fused, latent>>(1e-5);
}
TEST_CASE("latent rows of a codec: dense attention is plain attention") {
  // fp8 rounds to 2^-4 of a value; K and V of a page share its scale.
  check_dense<cpu::engine<separate, latent_format<fp8_pages<bf16>, 96, 64>>>(0.4);
}
TEST_CASE("fp8 latent rows: attention over what they hold exactly is plain attention") {
  for (const int tokens : {5, 6, 100}) {  // 6 a page; the rest is open, in bf16
    for (const int group : {1, 16}) {
      filled<cpu::engine<separate, deepseek>> cache(86, tokens, group, 7, 1);
      CHECK(largest_difference(cache.attend(), cache.expected()) < 2e-5);
      filled<reference::engine<separate, deepseek>> exact(86, tokens, group, 1000, 1);
      CHECK(largest_difference(exact.attend(), exact.expected()) < 1e-5);
    }
  }
  // 656 bytes of a sealed row, once for K and V. An open row takes 2 bytes a value.
  filled<cpu::engine<separate, deepseek>> cache(86, 100, 1, 1000, 1);
  cache.attend();
  CHECK(cache.moved.pages_read == 16);
  CHECK(cache.moved.filtered_bytes == 96 * 656);
  CHECK(cache.moved.buffer_bytes == 4 * 576 * 2);
  CHECK(deepseek::token_bytes == 656);
}
TEST_CASE("latent rows with 128 query heads over one KV head") {
  filled<cpu::engine<separate, latent>> cache(72, 200, 128, 1000, 1);
  CHECK(largest_difference(cache.attend(), cache.expected()) < 1e-5);
}

TEST_CASE_TEMPLATE("biases over rows that share pages: slope times distance, of each query head",
                   Engine, cpu::engine<fused, rows_of_64>, cpu::engine<separate, latent>,
                   reference::engine<fused, rows_of_64>, reference::engine<separate, latent>) {
  for (const int group : {1, 3, 8}) {
    std::vector<float> slopes;
    for (int h = 0; h < 2 * group; ++h) {
      slopes.push_back(0.125f * static_cast<float>(h + 1));
    }
    for (const int tokens : {1, 17, 150}) {
      filled<Engine> cache(85, tokens, group, 1000, 2, {.slopes = slopes});
      CHECK(largest_difference(cache.attend(), cache.expected(0, [&](int h, int t) {
              return -static_cast<double>(slopes[static_cast<std::size_t>(h)]) * (tokens - 1 - t);
            })) < 1e-5);
    }
  }
}

TEST_CASE("fused rows give the bits of separate rows") {
  for (const int tokens : {15, 16, 40, 333}) {
    for (const int group : {1, 3}) {
      filled<cpu::engine<separate, rows_of_64>> apart(73, tokens, group);
      filled<cpu::engine<fused, rows_of_64>> together(73, tokens, group);
      CHECK(together.attend() == apart.attend());
    }
  }
}

TEST_CASE("a page that holds K and V counts once, and so does each byte of latent rows") {
  // 4 KiB of fp16 rows of 64: 32 tokens of K, or 16 of both. 100 tokens are 6 pages and 4 tokens.
  filled<cpu::engine<fused, rows_of_64>> together(74, 100, 1);
  together.attend();
  CHECK(together.moved.pages_read == 2 * 6);
  CHECK(together.moved.array_bytes == 2 * 6 * 4096);
  CHECK(together.moved.filtered_bytes == 2 * 96 * 2 * 64 * 2);
  CHECK(together.moved.buffer_bytes == 2 * 4 * 2 * 64 * 2);
  CHECK(together.engine.cache().pages().free_pages() ==
        together.engine.cache().pages().capacity_pages() - 12);
  const auto table = store::l2p_of(together.engine.cache(), together.seq);
  CHECK(table.token_indexed_entries == 2 * 6);

  // Rows of 96 in bf16: 21 a page. 100 tokens are 4 pages and 16 tokens.
  filled<cpu::engine<separate, latent>> rows(75, 100, 1);
  rows.attend();
  CHECK(rows.moved.pages_read == 2 * 4);
  CHECK(rows.moved.filtered_bytes == 2 * 84 * 96 * 2);
  CHECK(rows.moved.buffer_bytes == 2 * 16 * 96 * 2);
  CHECK(latent::token_bytes == 96 * 2);
}

TEST_CASE("a fold of known logits reads the page anew") {
  using top = in_drive<layout::fused<>, attention::top_values>;
  filled<cpu::engine<top, rows_of_64>> cache(76, 96, 1);
  cache.attend();
  // All K first: 6 pages a head; then the pages with a chosen row of V, at least one.
  CHECK(cache.moved.pages_read > 2 * 6);
  CHECK(cache.moved.pages_read <= 2 * 12);
}

TEST_CASE("sparf on fused rows: plan = access, and Alg. 1 in fp64") {
  using sparf = in_drive<layout::fused_dual<>, attention::sparf>;
  for (const int tokens : {1, 40, 700}) {
    test::check_against_transcription<cpu::engine<sparf, rows_of_64>, rows_of_64>(77, tokens, 2, 3);
    test::check_against_transcription<reference::engine<sparf, rows_of_64>, rows_of_64>(78, tokens,
                                                                                        2, 3);
    const random_cache<rows_of_64> data(79, tokens, 6, 2);
    engine<sparf, rows_of_64, cpu::path, test::watched_store> engine(
        {.layers = 1, .q_heads = 6, .kv_heads = 2}, test::small_capacity);
    const test::attended mine = test::attend_recorded(engine, data);
    CHECK(engine.cache().pages().reads == mine.seen.pages());
    std::uint64_t pages = 0;
    std::uint64_t entries = 0;
    for (const test::head_record& head : mine.seen.heads) {
      for (const access_plan& plan : head.plans) {
        std::set<page_id> distinct;
        for (const page_read& read : plan.reads()) {
          if (!read.buffered) {
            distinct.insert(read.page);
            entries += read.wanted_elements();
          }
        }
        pages += distinct.size();
      }
    }
    CHECK(mine.traffic.pages_read == pages);
    CHECK(mine.traffic.filtered_bytes == entries * 2);
  }
}

TEST_CASE_TEMPLATE("reclaimed, saved and loaded", Engine, cpu::engine<fused, rows_of_64>,
                   cpu::engine<separate, latent>,
                   cpu::engine<fused, kv_format<int8_pages<fp16>, 64>>,
                   cpu::engine<fused, kv_format<int8_dims<fp16>, 64>>,
                   cpu::engine<separate, deepseek>) {
  filled<Engine> cache(80, 200, 2);
  cache.engine.reclaim(cache.seq, {.tokens_before = 50});
  const std::vector<float> out = cache.attend();
  const bool exact = Engine::format::plain || std::is_same_v<typename Engine::format, deepseek>;
  const double bound = exact ? 2e-5 : 0.3;
  CHECK(largest_difference(out, cache.expected(50)) < bound);
  std::stringstream file;
  cache.engine.save(cache.seq, file);
  filled<Engine> other(80, 0, 2);
  other.engine.load(other.seq, file);
  CHECK(other.engine.tokens(other.seq, 0) == 150);
  std::vector<float> again(out.size());
  other.engine.attend(other.seq, 0, cache.data.q, again);
  CHECK(out == again);
  other.engine.reclaim(other.seq);
  CHECK(other.engine.cache().pages().free_pages() == other.engine.cache().pages().capacity_pages());
}

TEST_CASE("summaries see the rows of shared pages: quest with all pages kept is dense") {
  using quest_fused = in_drive<layout::fused<>, attention::quest>;
  filled<cpu::engine<quest_fused, kv_format<int8_pages<fp16>, 64>>> cache(81, 120, 2, 7);
  CHECK(cache.attend().size() == 256);
  const attention::quest all{.keep_pages = 1.0};
  cpu::engine<quest_fused, latent> engine({.layers = 1, .q_heads = 4, .kv_heads = 2},
                                          test::small_capacity, all);
  const random_cache<latent> data(82, 120, 4, 2);
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k);
  std::vector<float> out(4 * 64);
  engine.attend(seq, 0, data.q, out);
  const auto v = attended_v(data);
  const test::plain_attention plain_of{2, 4, 96, 64};
  CHECK(largest_difference(out, plain_of(std::span<const bf16>(data.k), std::span<const bf16>(v),
                                         std::span<const float>(data.q), 120)) < 1e-5);
}

TEST_CASE("clustered fused rows give the bits of clustered separate rows") {
  const auto attend = [](auto cache) {
    cache.engine.build(cache.seq, 0);
    return cache.attend();
  };
  using apart = in_drive<layout::token_indexed<>, attention::squeezed>;
  using together = in_drive<layout::fused<>, attention::squeezed>;
  CHECK(attend(filled<cpu::engine<together, rows_of_64>>(84, 600, 2)) ==
        attend(filled<cpu::engine<apart, rows_of_64>>(84, 600, 2)));
}

TEST_CASE("latent rows take no V") {
  filled<cpu::engine<separate, latent>> cache(83, 10, 1);
  CHECK_THROWS_WITH_AS(
      cache.engine.append(cache.seq, 0, cache.data.k, cache.data.v),
      "append: k must be [new_tokens, 2, 96] and v empty, because latent rows hold V, too, got 1920 and 1280 elements",
      bad_argument);
  CHECK(cache.engine.tokens(cache.seq, 0) == 10);
}
