// Teams: every part once, on any worker, and exceptions for the caller.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <thread>
#include <vector>

#include "instinfer/core/team.hpp"

namespace instinfer::test_team {

TEST_CASE("a team does every part once, and carries an exception to the caller") {
  const team alone;
  CHECK(alone.parts() == 1);
  int calls = 0;
  alone.for_each_part([&](std::uint32_t part) { calls += part == 0 ? 1 : 100; });
  CHECK(calls == 1);
  const parallel::serial policy;
  std::vector<std::exception_ptr> failures;
  const team five{policy, 5, failures};
  CHECK(five.parts() == 5);
  std::vector<int> done(5);
  five.for_each_part([&](std::uint32_t part) { ++done[part]; });
  CHECK(done == std::vector<int>(5, 1));
  CHECK_THROWS_WITH(five.for_each_part([&](std::uint32_t part) {
    ++done[part];
    if (part % 2 == 1) {
      throw std::runtime_error("part " + std::to_string(part));
    }
  }),
                    "part 1");
  CHECK(done == std::vector<int>(5, 2));  // the others went on
}

}  // namespace instinfer::test_team
