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
  alone.for_each_part(1, [&](std::uint32_t part) { calls += part == 0 ? 1 : 100; });
  CHECK(calls == 1);
  const parallel::serial policy;
  std::vector<std::exception_ptr> failures;
  const team five{policy, 5, failures};
  CHECK(five.parts() == 5);
  std::vector<int> done(5);
  five.for_each_part(5, [&](std::uint32_t part) { ++done[part]; });
  CHECK(done == std::vector<int>(5, 1));
  CHECK_THROWS_WITH(five.for_each_part(5,
                                       [&](std::uint32_t part) {
                                         ++done[part];
                                         if (part % 2 == 1) {
                                           throw std::runtime_error("part " + std::to_string(part));
                                         }
                                       }),
                    "part 1");
  CHECK(done == std::vector<int>(5, 2));  // the others went on
  five.for_each_part(2, [&](std::uint32_t part) { ++done[part]; });
  CHECK(done == std::vector{3, 3, 2, 2, 2});
}

TEST_CASE("parts of a fold: all of them, or under in_parts one for each 512 KiB, whoever works") {
  const parallel::serial policy;
  const parallel::in_parts fixed(5, policy);
  std::vector<std::exception_ptr> failures;
  constexpr std::uint64_t part = 512 << 10;
  CHECK(team{}.parts_of(100 * part) == 1);
  CHECK(team{policy, 5, failures}.parts_of(0) == 5);
  for (const team& t : {team{5}, team{fixed, 5, failures}}) {
    CHECK(t.parts() == 5);
    CHECK(t.parts_of(0) == 1);
    CHECK(t.parts_of(2 * part - 1) == 1);
    CHECK(t.parts_of(2 * part) == 2);
    CHECK(t.parts_of(4 * part) == 4);
    CHECK(t.parts_of(100 * part) == 5);
    std::vector<std::uint32_t> order;
    t.for_each_part(3, [&](std::uint32_t i) { order.push_back(i); });
    CHECK(order == std::vector<std::uint32_t>{0, 1, 2});
  }
}

}  // namespace instinfer::test_team
