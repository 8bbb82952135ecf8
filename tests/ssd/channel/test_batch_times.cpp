#include <doctest/doctest.h>

#include <limits>

#include "instinfer/ssd/channel/batch_times.hpp"

namespace instinfer::test_batch_times {

TEST_CASE("round_ticks: to nearest, halves up") {
  CHECK(flash::round_ticks(0, 7) == 0);
  CHECK(flash::round_ticks(3, 7) == 0);
  CHECK(flash::round_ticks(4, 7) == 1);
  CHECK(flash::round_ticks(7, 7) == 1);
  CHECK(flash::round_ticks(1, 2) == 1);
  CHECK(flash::round_ticks(499, 1, 1000) == 0);
  CHECK(flash::round_ticks(500, 1, 1000) == 1);
  CHECK(flash::round_ticks(std::numeric_limits<std::int64_t>::max(), 1) ==
        std::numeric_limits<std::int64_t>::max());
}

}  // namespace instinfer::test_batch_times
