#include <doctest/doctest.h>

#include <cmath>
#include <initializer_list>

#include "instinfer/codec/round.hpp"

namespace instinfer::test_round {

TEST_CASE("integers are rounded to nearest, ties to even") {
  for (const float x : {0.0f, 0.5f, 1.5f, 2.5f, 126.5f, 0.49999997f, 14.499999f, 4194303.5f}) {
    CHECK(round_to_int(x) == static_cast<int>(std::nearbyint(x)));
    CHECK(round_to_int(-x) == static_cast<int>(std::nearbyint(-x)));
  }
}

}  // namespace instinfer::test_round
