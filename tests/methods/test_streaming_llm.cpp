// StreamingLLM: first tokens, newest tokens, and their positions, on the reference and the CPU
// path.

#include "instinfer/methods/streaming_llm.hpp"
#include "tests/support/decoder.hpp"

namespace instinfer::test_streaming_llm {

using namespace test;
using attention::streaming_llm;

TEST_CASE("StreamingLLM: all kept is dense attention, and what is kept is attended exactly") {
  test::check_method<streaming_llm>({.sinks = 4, .window = 1.0},
                                    {.sinks = 4, .window = budget::at_most(20)});
}

TEST_CASE("StreamingLLM keeps the first tokens and the newest, from fast memory") {
  const test::random_cache<test::method_format> data(41, 400, 3, 1);
  decoder<streaming_llm, cpu::path> d({.sinks = 4, .window = budget::at_most(60)}, 3);
  for (std::size_t t = 0; t < 400; ++t) {
    d.append(rows_of(data.k, t, 1), rows_of(data.v, t, 1));
    d.attend(data.q);
    const int n = static_cast<int>(t) + 1;
    const int sinks = std::min(4, n);
    CHECK(d.folded() == test::joined(test::tokens_from_to(0, sinks),
                                     test::tokens_from_to(std::max(sinks, n - 60), n)));
    CHECK(d.traffic.fast_bytes == 2 * std::min<std::uint64_t>(64, t + 1) * test::row_bytes);
    CHECK(d.traffic.pages_read + d.traffic.filtered_bytes + d.traffic.buffer_bytes == 0);
  }
}

TEST_CASE_TEMPLATE("StreamingLLM numbers positions inside what it keeps", Path, reference::path,
                   cpu::path) {
  // Keys and queries before rotation; the cache gets them rotated at their positions. The method's
  // result is attention with slot i of what is kept at position i and the query at the last slot.
  for (const bool interleaved : {false, true}) {
    for (const std::uint32_t rotated : {0u, 32u}) {
      const attention::rope rotation{10000, rotated, interleaved};
      const int tokens = 300;
      const int window = 40;
      const test::random_cache<test::method_format> data(42, tokens, 1, 1);
      const auto at_position = [&](std::span<const float> x, std::int64_t position) {
        std::vector<float> turned(x.begin(), x.end());
        rotation.rotate(turned, position);
        return turned;
      };
      decoder<streaming_llm, Path> d(
          {.sinks = 4, .window = budget::at_most(window), .rotation = rotation});
      for (int t = 0; t < tokens; ++t) {
        const auto at = static_cast<std::size_t>(t);
        d.append(at_position(rows_of(data.k, at, 1), t), rows_of(data.v, at, 1));
        if (t != 10 && t != 43 && t != 44 && t != tokens - 1) {
          continue;
        }
        d.attend(at_position(data.q, t));
        std::vector<float> keys;
        std::vector<float> values;
        std::int64_t slot = 0;
        for (const int kept : d.folded()) {
          const auto from = static_cast<std::size_t>(kept);
          std::ranges::copy(at_position(rows_of(data.k, from, 1), slot++),
                            std::back_inserter(keys));
          std::ranges::copy(rows_of(data.v, from, 1), std::back_inserter(values));
        }
        const row_vector expected = test::defined_attention(
            matrix_of(at_position(data.q, slot - 1)).row(0), matrix_of(keys), matrix_of(values));
        // Rotated values are rounded to float, here and there: some 2^-24 of each of 64 products,
        // whose sizes add up to 30.
        CHECK(error_against(d, expected) <= test::tolerance<Path>(tokens) + 30 * 0x1p-24);
        if (t == 10 || t == 43) {  // nothing is left out yet: true positions
          CHECK(static_cast<int>(slot) == t + 1);
        } else {  // with true positions the result is another one
          CHECK(static_cast<int>(slot) == 44);
          decoder<streaming_llm, Path> plain({.sinks = 4, .window = budget::at_most(window)});
          for (int i = 0; i <= t; ++i) {
            const auto from = static_cast<std::size_t>(i);
            plain.append(at_position(rows_of(data.k, from, 1), i), rows_of(data.v, from, 1));
          }
          plain.attend(at_position(data.q, t));
          CHECK((t == 44 || error_against(plain, expected) > 1e-3));
        }
      }
    }
  }
}

TEST_CASE("StreamingLLM: tokens that come 16 at a time give the same as one by one") {
  const test::random_cache<test::method_format> data(43, 160, 2, 2);
  const test::random_cache<test::method_format> queries(44, 160, 2, 2);
  using on_cpu = decoder<streaming_llm, cpu::path>;
  const streaming_llm policy{.sinks = 4, .window = budget::at_most(30)};
  on_cpu one(policy, 2, 2);
  on_cpu chunks(policy, 2, 2);
  for (std::size_t t = 0; t < 160; t += 16) {
    chunks.append(rows_of(data.k, 2 * t, 32), rows_of(data.v, 2 * t, 32));
    std::vector<float> out(16 * 128);
    chunks.engine.attend(chunks.seq, 0, rows_of(queries.k, 2 * t, 32), out, chunks.work,
                         parallel::serial{}, chunks.seen);
    for (std::size_t i = 0; i < 16; ++i) {
      one.append(rows_of(data.k, 2 * (t + i), 2), rows_of(data.v, 2 * (t + i), 2));
      one.attend(rows_of(queries.k, 2 * (t + i), 2));
      CHECK(std::ranges::equal(one.out, std::span(out).subspan(i * 128, 128)));
    }
  }
}

}  // namespace instinfer::test_streaming_llm
