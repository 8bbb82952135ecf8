#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "instinfer/core/top_k.hpp"

namespace instinfer::test_top_k {

namespace {

std::vector<std::uint32_t> members(index_view set) {
  std::vector<std::uint32_t> all;
  set.for_each([&](std::uint32_t i) { all.push_back(i); });
  return all;
}

}  // namespace

TEST_CASE_TEMPLATE("top_k chooses the largest, ties to the lower index", T, float, double) {
  std::mt19937 random(2);
  std::vector<order_key_t<T>> scratch;
  for (int round = 0; round < 300; ++round) {
    std::vector<T> scores(1 + random() % 60);
    for (T& s : scores) {
      s = static_cast<T>(static_cast<int>(random() % 9) - 4) / 2;  // many ties, both zeros
      s = random() % 10 == 0 ? -std::numeric_limits<T>::infinity()
                             : s * (random() % 2 == 0 ? T{1} : T{-1});
    }
    std::vector<std::uint32_t> order(scores.size());
    for (std::uint32_t i = 0; i < order.size(); ++i) {
      order[i] = i;
    }
    std::ranges::stable_sort(order, [&](auto a, auto b) { return scores[a] > scores[b]; });
    const auto k = static_cast<std::uint32_t>(random() % (scores.size() + 2));
    std::vector<std::uint32_t> expected(
        order.begin(), order.begin() + std::min<std::ptrdiff_t>(k, std::ssize(order)));
    std::ranges::sort(expected);
    index_set chosen;
    top_k<T>(scores, k, chosen, scratch);
    CHECK(members(chosen) == expected);
  }
}

TEST_CASE("top_k is defined for NaN and infinities") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> scores{1.0f, nan, -inf, inf, -nan, 0.0f};
  std::vector<std::uint32_t> scratch;
  for (std::uint32_t k = 0; k <= scores.size(); ++k) {
    index_set chosen;
    top_k<float>(scores, k, chosen, scratch);
    CHECK(chosen.count() == k);
  }
}

}  // namespace instinfer::test_top_k
