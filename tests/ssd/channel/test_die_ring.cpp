// Dies that wait take turns.

#include <doctest/doctest.h>

#include <set>

#include "instinfer/ssd/channel/die_ring.hpp"

namespace instinfer::test_die_ring {

TEST_CASE("die ring: the next die that waits, around any number of dies") {
  for (const std::int32_t dies : {1, 2, 63, 64, 65, 128, 130}) {
    CAPTURE(dies);
    flash::die_ring ring(dies);
    CHECK(ring.empty());
    std::set<std::int32_t> waiting;
    std::int32_t next = 0;
    // Each step adds a die if it is not there, and takes two of three.
    for (std::int32_t i = 0; i < 3 * dies + 200; ++i) {
      if (const std::int32_t die = (i * 37 + dies - 1) % dies; waiting.insert(die).second) {
        ring.add(die);
      }
      if (i % 3 == 0) {
        continue;
      }
      REQUIRE(ring.empty() == waiting.empty());
      if (!waiting.empty()) {
        auto at = waiting.lower_bound(next);
        at = at == waiting.end() ? waiting.begin() : at;
        REQUIRE(ring.take() == *at);
        next = *at + 1;
        waiting.erase(at);
      }
    }
  }
}

}  // namespace instinfer::test_die_ring
