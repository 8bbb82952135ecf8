#include <random>
#include <vector>

#include <doctest/doctest.h>

#include "instinfer/core/index_algebra.hpp"

namespace instinfer::test_index_algebra {

TEST_CASE("intersection, difference and union are those of sets") {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    CAPTURE(round);
    index_set a, b, common, rest, all;
    const auto sparse_a = 1 + random() % 6;
    const auto sparse_b = 1 + random() % 6;
    for (std::uint32_t i = 0; i < 40; ++i) {
      if (random() % sparse_a == 0) {
        a.add(i);
      }
      if (random() % sparse_b == 0) {
        b.add(i);
      }
    }
    add_intersection(a, b, common);
    add_difference(a, b, rest);
    add_union(a, b, all);
    index_set expected_common, expected_rest, expected_all;
    for (std::uint32_t i = 0; i < 40; ++i) {
      if (a.view().contains(i) || b.view().contains(i)) {
        expected_all.add(i);
      }
      if (a.view().contains(i)) {
        (b.view().contains(i) ? expected_common : expected_rest).add(i);
      }
    }
    CHECK(common == expected_common);
    CHECK(rest == expected_rest);
    CHECK(all == expected_all);
  }
}

TEST_CASE("the ends of a set: its oldest and its newest indices") {
  std::mt19937 random(2);
  for (int round = 0; round < 2000; ++round) {
    index_set set;
    std::vector<std::uint32_t> members;
    const auto sparse = 1 + random() % 4;
    for (std::uint32_t i = 5; i < 30; ++i) {
      if (random() % sparse == 0) {
        set.add(i);
        members.push_back(i);
      }
    }
    const auto oldest = static_cast<std::uint32_t>(random() % 32);
    const auto newest = static_cast<std::uint32_t>(random() % 32);
    index_set expected;
    for (std::size_t at = 0; at < members.size(); ++at) {
      if (at < oldest || at + newest >= members.size()) {
        expected.add(members[at]);
      }
    }
    index_set ends;
    add_ends(set, oldest, newest, ends);
    CHECK(ends == expected);
  }
}

}  // namespace instinfer::test_index_algebra
