#include <random>
#include <set>

#include <doctest/doctest.h>

#include "instinfer/core/index_algebra.hpp"

namespace instinfer::test_index_algebra {

TEST_CASE("intersection and difference are those of sets") {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    CAPTURE(round);
    index_set a, b, common, rest;
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
    index_set expected_common, expected_rest;
    for (std::uint32_t i = 0; i < 40; ++i) {
      if (a.view().contains(i)) {
        (b.view().contains(i) ? expected_common : expected_rest).add(i);
      }
    }
    CHECK(common == expected_common);
    CHECK(rest == expected_rest);
  }
}

}  // namespace instinfer::test_index_algebra
