// Every published method on the flash engine's defaults: timed without data, and its receipt is
// that of the same plans on a path with data.

#include <doctest/doctest.h>

#include "instinfer/flash/engine.hpp"
#include "instinfer/methods.hpp"
#include "tests/support/timed_cache.hpp"

namespace instinfer::test_all_methods {

namespace {

template <class Method>
using point = design<Method, layout::token_indexed<>, flash::pcie5_16ch, transfer::in_storage>;

constexpr std::uint32_t tokens = 4096;
constexpr std::uint64_t group_tokens = 16;  // of 128 dims in fp16, in a page of 4 KiB
constexpr std::uint64_t token_bytes = 2 * 128 * 2;

// The last attend of a cache of 8 query heads on 2 KV heads, after `earlier` others.
template <class Method>
flash::receipt timed(const Method& method = {}, int earlier = 0, bool build = false) {
  flash::engine<point<Method>> engine({.layers = 3, .q_heads = 8, .kv_heads = 2},
                                      {.bytes = 1 << 30, .context_tokens = tokens}, method);
  const sequence seq = engine.open();
  engine.append_count(seq, 2, tokens);
  if constexpr (requires { engine.build(seq, 2); }) {
    if (build) {
      CHECK(engine.build(seq, 2).traffic.pages_written > 0);
    }
  }
  std::vector<float> q(8 * 128, 1.0f);
  std::vector<float> out(8 * 128, -1.0f);
  for (int i = 0; i < earlier; ++i) {
    engine.attend(seq, 2, q, out);
  }
  const flash::receipt done = engine.attend(seq, 2, q, out);
  CHECK(out == std::vector<float>(8 * 128, 0.0f));
  CHECK(done.total_ns() > 0);
  CHECK(done.traffic.pages_read == test::charged_pages(done));
  return done;
}

// Bytes of `n` tokens of each KV head.
constexpr std::uint64_t bytes_of(std::uint64_t n) { return n * 2 * token_bytes; }
// Pages that they fill, K and V.
constexpr std::uint64_t pages_of(std::uint64_t n) {
  return (n + group_tokens - 1) / group_tokens * 2 * 2;
}

}  // namespace

using namespace attention;

TEST_CASE("methods that read all, or by position, or by dims") {
  CHECK(timed<dense>().traffic.pages_read == pages_of(tokens));
  // All of K, a tenth of V.
  CHECK(timed<top_values>().traffic.filtered_bytes == bytes_of(tokens) / 2 + bytes_of(410) / 2);
  CHECK(timed<streaming_llm>().traffic.fast_bytes == bytes_of(1024));
  // An eighth of the dims of K, then a sixteenth of the tokens (SparQ and SparF at their defaults).
  const sparf by_default;
  CHECK(timed(by_default).traffic.filtered_bytes ==
        std::uint64_t{tokens} * 2 * 2 * by_default.keep_dims.of(128, "") +
            bytes_of(by_default.keep_tokens.of(tokens, "")));
  CHECK(timed<sparq>().traffic.filtered_bytes > 0);
}

TEST_CASE("quest: an eighth of the boxes, whole; for each head of a group with a wrapper") {
  const traffic read = timed<quest>().traffic;
  CHECK(read.pages_read == pages_of(tokens / 8));
  CHECK(read.summary_bytes == 2 * tokens / 16 * 2 * 128 * 2);  // largest and smallest key in fp16
  CHECK(timed<per_query_head<quest>>().traffic.pages_read == 4 * pages_of(tokens / 8));
}

TEST_CASE("methods over clusters read all before build(), clusters after it") {
  CHECK(timed<retro_infer>().traffic.pages_read == pages_of(tokens));
  const traffic built = timed<retro_infer>({}, 0, true).traffic;
  CHECK(built.fast_bytes == bytes_of(4 + 64));
  // 256 clusters of about 16 tokens, 0.018 of them: 5 a head.
  CHECK(built.filtered_bytes > 2 * 5 * 4 * token_bytes);
  CHECK(built.filtered_bytes < 2 * 5 * 64 * token_bytes);
  // The same clusters again are in the wave buffer.
  CHECK(timed<retro_infer>({}, 1, true).traffic.fast_bytes > built.fast_bytes);

  CHECK(timed<squeezed>().traffic.pages_read == pages_of(tokens));
  const traffic all = timed<squeezed>({}, 0, true).traffic;  // threshold 0
  CHECK(all.filtered_bytes == bytes_of(tokens - 100));
  CHECK(all.pages_read == pages_of(tokens - 100));
  const auto some = timed<squeezed>({.threshold = 1e-4}, 0, true).traffic.filtered_bytes;
  const auto few = timed<squeezed>({.threshold = 1e-3}, 0, true).traffic.filtered_bytes;
  CHECK(few > 0);
  CHECK(few < some);
  CHECK(some < all.filtered_bytes / 2);
  const squeezed levels{.threshold = 1e-4, .coarse_threshold = 1e-4, .coarse_clusters = 0.01};
  CHECK(timed(levels, 0, true).traffic.filtered_bytes < some);
}

TEST_CASE("methods that learn: the first query sees all, later ones what was kept") {
  CHECK(timed<h2o>().traffic.fast_bytes == bytes_of(tokens));
  CHECK(timed<h2o>({}, 1).traffic.fast_bytes == bytes_of(1024));
  const traffic in_flash = timed<h2o>({.from = residence::flash}, 1).traffic;
  CHECK(in_flash.filtered_bytes == bytes_of(1024));
  CHECK(in_flash.pages_read > pages_of(1024));  // heavy ones lie apart

  // The window is 1024 tokens at most, and shrinks by blocks of 64, one more than needed.
  const traffic judged = timed<hgca>().traffic;
  CHECK(judged.fast_bytes == bytes_of(960));
  CHECK(judged.filtered_bytes == bytes_of(tokens - 960));
  const traffic later = timed<hgca>({}, 1).traffic;
  // Of normal logits with deviation 2.74, 0.13 reach half of the uniform weight.
  CHECK(later.filtered_bytes > bytes_of(tokens - 960) * 0.11);
  CHECK(later.filtered_bytes < bytes_of(tokens - 960) * 0.15);
  CHECK(timed<hgca>({.scope = weight_scope::global}, 1).traffic.fast_bytes == judged.fast_bytes);
}

TEST_CASE("methods with an index: every key, the best tokens") {
  const traffic read = timed<dsa>().traffic;
  CHECK(read.filtered_bytes == bytes_of(2048));
  CHECK(read.summary_bytes == 2 * tokens * (128 + 4));  // fp8 keys, each with a scale
  const traffic few_heads = timed<misa>().traffic;
  CHECK(few_heads.filtered_bytes == read.filtered_bytes);
  CHECK(few_heads.summary_bytes == read.summary_bytes + 2 * (tokens / 1024) * 128 * 4);
  CHECK(timed<misa>({.candidates = budget::at_most(3000)}).traffic.summary_bytes ==
        few_heads.summary_bytes + 2 * 3000 * (128 + 4));
}

}  // namespace instinfer::test_all_methods
