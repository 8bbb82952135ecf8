#include <doctest/doctest.h>

#include "instinfer/engine/design.hpp"
#include "instinfer/system/retry_cost.hpp"
#include "tests/support/shared_timelines.hpp"

namespace instinfer::test_retry_cost {

TEST_CASE("retries only ever add array reads") {
  const model_shape heads{.layers = 1, .q_heads = 8, .kv_heads = 8};
  CHECK(system::read_retry_increase<insta>(heads, 4, 512, {}) == 0);
  // Every page reads once more: its die is held for another 45 us, about a third of a round of 138
  // us.
  const flash::read_retry always{.at_least = {flash::retry_scale, 0, 0, 0, 0}};
  const double more = system::read_retry_increase<insta>(heads, 16, 1024, always);
  CHECK(more > 0.1);
  CHECK(more < 0.5);
}

}  // namespace instinfer::test_retry_cost
