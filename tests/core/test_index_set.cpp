#include <doctest/doctest.h>

#include <random>
#include <set>
#include <vector>

#include "instinfer/core/index_set.hpp"

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

}  // namespace instinfer::test_index_set
