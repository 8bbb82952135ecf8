#include <random>
#include <set>
#include <vector>

#include <doctest/doctest.h>

#include "instinfer/core/budget.hpp"
#include "instinfer/core/index_set.hpp"
#include "instinfer/core/top_k.hpp"

namespace instinfer::test_index_set {

namespace {

std::vector<std::uint32_t> members(index_view set) {
  std::vector<std::uint32_t> all;
  set.for_each([&](std::uint32_t i) { all.push_back(i); });
  return all;
}

}  // namespace

TEST_CASE("an index set is the set of what was added") {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    index_set set;
    std::set<std::uint32_t> model;
    std::uint32_t at = 0;
    for (int i = 0; i < 20; ++i) {
      const auto first = at + static_cast<std::uint32_t>(random() % 3);
      const auto last = first + static_cast<std::uint32_t>(random() % 4);
      set.add(first, last);
      for (std::uint32_t x = first; x < last; ++x) {
        model.insert(x);
      }
      at = last;
    }
    CHECK(members(set) == std::vector(model.begin(), model.end()));
    CHECK(set.count() == model.size());
    for (std::uint32_t x = 0; x < at + 2; ++x) {
      CHECK(set.view().contains(x) == model.contains(x));
    }
    for (std::size_t r = 1; r < set.view().runs().size();
         ++r) {  // runs are disjoint and never touch
      CHECK(set.view().runs()[r - 1].last < set.view().runs()[r].first);
    }
  }
}

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

TEST_CASE("a budget keeps a share, rounded up, or a count") {
  CHECK(budget(1.0 / 8).of(64, "r") == 8);
  CHECK(budget(1.0 / 3).of(96, "r") == 32);
  CHECK(budget(1e-6).of(64, "r") == 1);
  CHECK(budget(0.0).of(64, "r") == 0);
  CHECK(budget(1.0).of(64, "r") == 64);
  CHECK(budget(0.5).of(0, "r") == 0);
  CHECK(budget::exactly(5).of(64, "r") == 5);
  CHECK(budget::at_most(100).of(64, "r") == 64);
}

TEST_CASE("a budget that cannot be kept says which one, and what would be right") {
  const auto message = [](budget b) {
    try {
      (void)b.of(64, "sparf.keep_dims");
    } catch (const bad_argument& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  CHECK(message(std::nan("")).find("sparf.keep_dims: a share must lie in [0, 1], got nan") !=
        std::string::npos);
  CHECK(message(1.5).find("a share must lie in [0, 1], got 1.5") != std::string::npos);
  CHECK(message(-0.1).find("[0, 1]") != std::string::npos);
  CHECK(message(budget::exactly(65)).find("exactly 65 were asked for, but there are only 64") !=
        std::string::npos);
  CHECK(message(budget::at_most(-1)).find("must not be negative") != std::string::npos);
}

}  // namespace instinfer::test_index_set
