// Splits: every head and token of a sequence has one drive; parts and their logit rules.

#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "instinfer/cluster/splits.hpp"
#include "instinfer/methods/dense.hpp"
#include "instinfer/methods/sparf.hpp"

namespace instinfer::test_splits {

using namespace cluster;

static_assert(Split<by_heads> && Split<by_sequences> && Split<by_tokens> &&
              Split<by_heads_and_tokens>);
static_assert(!Split<head_range>);

constexpr model_shape seven{.layers = 3, .q_heads = 14, .kv_heads = 7};

TEST_CASE("by_heads: 7 heads on 4 drives are 1, 2, 2 and 2") {
  const std::vector<head_range> expected{{0, 1}, {1, 3}, {3, 5}, {5, 7}};
  for (int d = 0; d < 4; ++d) {
    CHECK(by_heads{}.heads(seven, d, 4) == expected[static_cast<std::size_t>(d)]);
  }
  for (int heads = 1; heads <= 20; ++heads) {
    for (int n = 1; n <= heads; ++n) {
      int next = 0;
      for (int d = 0; d < n; ++d) {
        const head_range range = by_heads{}.heads({.q_heads = heads, .kv_heads = heads}, d, n);
        CHECK(range.first == next);
        CHECK((range.size() == heads / n || range.size() == (heads + n - 1) / n));
        next = range.last;
      }
      CHECK(next == heads);
    }
  }
  CHECK_THROWS_WITH_AS(part_of(by_heads{}, seven, 0, 8),
                       "by_heads: every drive needs a KV head, got 8 drives for 7 heads",
                       bad_argument);
}

TEST_CASE("by_sequences: home mod n") {
  for (std::uint32_t home = 0; home < 9; ++home) {
    for (int d = 0; d < 4; ++d) {
      CHECK(by_sequences{}.holds(home, d, 4) == (home % 4 == static_cast<std::uint32_t>(d)));
    }
  }
}

TEST_CASE("by_tokens: token t is on drive t / block mod n") {
  for (const std::uint32_t block : {1u, 3u, 16u}) {
    for (const int n : {1, 2, 5}) {
      std::vector<std::uint64_t> have(static_cast<std::size_t>(n));
      for (std::uint64_t t = 0; t < 100; ++t) {
        for (int d = 0; d < n; ++d) {
          CHECK(by_tokens{block}.tokens_of(t, d, n) == have[static_cast<std::size_t>(d)]);
        }
        ++have[t / block % static_cast<std::uint64_t>(n)];
      }
    }
  }
  const std::uint64_t many = std::uint64_t{1} << 40;  // beyond 32 bits
  CHECK(by_tokens{256}.tokens_of(many + 300, 1, 4) == many / 4 + 44);
  CHECK_THROWS_WITH_AS(part_of(by_tokens{0}, seven, 0, 2),
                       "by_tokens: block must be positive, got 0", bad_argument);
}

TEST_CASE("by_heads_and_tokens: 7 heads on 3 groups of 2 drives") {
  const by_heads_and_tokens split{.head_groups = 3, .block = 10};
  const std::vector<head_range> expected{{0, 2}, {2, 4}, {4, 7}};
  for (int d = 0; d < 6; ++d) {
    CHECK(split.heads(seven, d, 6) == expected[static_cast<std::size_t>(d / 2)]);
    CHECK(split.tokens_of(25, d, 6) == (d % 2 == 0 ? 15 : 10));
  }
  CHECK_THROWS_WITH_AS(
      part_of(split, seven, 0, 5),
      "by_heads_and_tokens: head_groups must divide the drives, got 3 groups of 5 drives",
      bad_argument);
  CHECK_THROWS_AS(part_of(by_heads_and_tokens{.head_groups = 0}, seven, 0, 5), bad_argument);
  CHECK_THROWS_AS(part_of(by_heads_and_tokens{.head_groups = 8}, seven, 0, 8), bad_argument);
}

TEST_CASE("by_heads_and_sequences: 7 heads on 3 groups of 2 drives") {
  const by_heads_and_sequences split{.head_groups = 3};
  const std::vector<head_range> expected{{0, 2}, {2, 4}, {4, 7}};
  for (int d = 0; d < 6; ++d) {
    CHECK(split.heads(seven, d, 6) == expected[static_cast<std::size_t>(d / 2)]);
    for (std::uint32_t home = 0; home < 5; ++home) {
      CHECK(split.holds(home, d, 6) == (home % 2 == static_cast<std::uint32_t>(d % 2)));
    }
    CHECK(split.tokens_of(25, d, 6) == 25);
  }
  CHECK_THROWS_WITH_AS(
      part_of(split, seven, 0, 5),
      "by_heads_and_sequences: head_groups must divide the drives, got 3 groups of 5 drives",
      bad_argument);
}

TEST_CASE("a part has the query heads of its KV heads, and their logit rule") {
  const drive_part part = part_of(by_heads{}, seven, 1, 4);
  CHECK(part.shape.layers == 3);
  CHECK(part.shape.kv_heads == 2);
  CHECK(part.shape.q_heads == 4);
  std::vector<float> slopes(14), biases(28), sinks(42), kept;
  std::iota(slopes.begin(), slopes.end(), 0.0f);
  std::iota(biases.begin(), biases.end(), 0.0f);
  std::iota(sinks.begin(), sinks.end(), 0.0f);
  logit_rule mine = part.logits(
      {.window = 9, .slopes = slopes, .distance_bias = biases, .sink_logits = sinks}, kept);
  const auto values = [](std::span<const float> x) { return std::vector(x.begin(), x.end()); };
  CHECK(mine.window == 9);
  CHECK(values(mine.slopes) == std::vector<float>{2, 3, 4, 5});
  CHECK(values(mine.distance_bias) == std::vector<float>{4, 5, 6, 7, 8, 9, 10, 11});
  CHECK(values(mine.sink_logits) == std::vector<float>{2, 3, 4, 5, 16, 17, 18, 19, 30, 31, 32, 33});
  mine = part.logits({.sink_logits = std::span(sinks).first(14)}, kept);
  CHECK(values(mine.sink_logits) == std::vector<float>{2, 3, 4, 5});
  CHECK(mine.slopes.empty());
  CHECK_THROWS_AS(part.logits({.slopes = std::span(slopes).first(4)}, kept), bad_argument);
}

TEST_CASE("by_tokens refuses rules that need a token's distance; the others take any") {
  using tokens = split_rules<by_tokens, attention::dense>;
  using heads = split_rules<by_heads, attention::sparf>;
  const std::vector<float> slopes(14);
  tokens::check({.soft_cap = 3.0f});
  CHECK_THROWS_AS(tokens::check({.window = 4}), bad_argument);
  CHECK_THROWS_AS(tokens::check({.slopes = slopes}), bad_argument);
  CHECK_THROWS_AS(tokens::check({.sink_logits = slopes}), bad_argument);
  heads::check({.window = 4, .sink_logits = slopes});
}

}  // namespace instinfer::test_splits
