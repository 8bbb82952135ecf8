// Biases of query rows, by their definitions.

#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "instinfer/core/logit_bias.hpp"

namespace instinfer::test_logit_bias {

TEST_CASE(
    "one row: slope times distance, the table with its last column for what is farther, the token's own") {
  const std::vector<float> table{0.5f, -1.0f, 2.0f};
  const std::vector<float> own{10.0f, 20.0f, 30.0f};
  CHECK(row_bias{.slope = 0.25f, .position = 9}.of<double>(9) == 0.0);
  CHECK(row_bias{.slope = 0.25f, .position = 9}.of<double>(5) == -1.0);
  CHECK(row_bias{.by_distance = table, .position = 9}.of<float>(9) == 0.5f);
  CHECK(row_bias{.by_distance = table, .position = 9}.of<float>(7) == 2.0f);
  CHECK(row_bias{.by_distance = table, .position = 9}.of<float>(0) == 2.0f);
  const row_bias all{
      .slope = 2.0f, .by_distance = table, .by_token = own.data(), .first = 7, .position = 9};
  CHECK(all.of<double>(7) == -4.0 + 2.0 + 10.0);
  CHECK(all.of<double>(8) == -2.0 - 1.0 + 20.0);
  CHECK(all.of<double>(9) == 0.0 + 0.5 + 30.0);
  CHECK(all.added_to(1.5, 9) == 32.0);
  // Sums beyond the largest number stay finite.
  constexpr float most = std::numeric_limits<float>::max();
  CHECK(row_bias{.slope = 3e38f, .position = 9}.added_to(-most, 5) == -most);
  CHECK(row_bias{.slope = -3e38f, .position = 9}.added_to(most, 5) == most);
}

TEST_CASE("rows are queries times heads of a KV head; causal queries stand at their own tokens") {
  constexpr std::uint32_t q_heads = 6, heads = 3, queries = 2, first = 4, tokens = 9;
  const std::vector<float> slopes{1, 2, 3, 4, 5, 6};
  std::vector<float> table(q_heads * 2);
  std::vector<float> own(queries * q_heads * (tokens - first));
  for (std::size_t i = 0; i < table.size(); ++i) {
    table[i] = 100.0f + static_cast<float>(i);
  }
  for (std::size_t i = 0; i < own.size(); ++i) {
    own[i] = static_cast<float>(1000 * i);
  }
  CHECK_FALSE(logit_bias{});
  CHECK(logit_bias{.slopes = slopes});
  CHECK(logit_bias{.by_distance = table});
  CHECK(logit_bias{.by_token = own});
  for (const bool causal : {true, false}) {
    const logit_bias bias{.slopes = slopes,
                          .by_distance = table,
                          .by_token = own,
                          .q_heads = q_heads,
                          .first_head = 3,  // the second KV head
                          .heads = heads,
                          .first = first,
                          .tokens = tokens,
                          .queries = queries,
                          .causal = causal};
    for (std::uint32_t query = 0; query < queries; ++query) {
      for (std::uint32_t h = 0; h < heads; ++h) {
        const std::uint32_t at = causal ? tokens - queries + query : tokens - 1;
        for (std::uint32_t t = first; t <= at; ++t) {
          const std::size_t head = 3 + h;
          const std::uint32_t d = at - t;
          const double expected =
              -static_cast<double>(slopes[head]) * d +
              static_cast<double>(table[head * 2 + (d == 0 ? 0 : 1)]) +
              static_cast<double>(own[(query * q_heads + head) * (tokens - first) + t - first]);
          CHECK(bias.row(query * heads + h).of<double>(t) == expected);
          CHECK(bias.from(query * heads).row(h).of<double>(t) == expected);
          CHECK(bias.from(query * heads).from(h).row(0).of<double>(t) == expected);
        }
      }
    }
  }
}

TEST_CASE("biases are those of the first head unless another is given") {
  CHECK(logit_bias{}.first_head == 0);
}

}  // namespace instinfer::test_logit_bias
