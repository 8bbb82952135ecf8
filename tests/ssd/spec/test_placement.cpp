// Placement: bijective over the channel, round trips, neighbours on different chips, errors.

#include <doctest/doctest.h>

#include <random>
#include <set>
#include <string>
#include <tuple>

#include "instinfer/ssd/spec/placement.hpp"

namespace instinfer::test_placement {

using flash::geometry;
using flash::location;
using flash::placement;

namespace {

geometry random_geometry(std::mt19937& random) {
  const auto pick = [&](int most) {
    return std::uniform_int_distribution<std::int32_t>{1, most}(random);
  };
  return {.channels = pick(4),
          .chips = pick(4),
          .dies = pick(3),
          .planes = pick(4),
          .blocks = pick(5),
          .pages = pick(6)};
}

constexpr placement at_compile_time{
    geometry{.channels = 8, .chips = 4, .dies = 2, .planes = 2, .blocks = 16, .pages = 32}};
static_assert(at_compile_time(3, 5) == location{.channel = 3, .chip = 1, .die = 1});
static_assert(at_compile_time.slot(at_compile_time(3, 777)) == 777);
static_assert(at_compile_time.sequence(at_compile_time.striped(9999)) == 9999);

}  // namespace

TEST_CASE("placement: a bijection between slots and locations of every channel") {
  for (unsigned seed = 1; seed <= 40; ++seed) {
    INFO("seed " << seed);
    std::mt19937 random{seed};
    const geometry g = random_geometry(random);
    const placement place{g};
    std::set<std::tuple<int, int, int, int, int, int>> seen;
    for (std::int32_t channel = 0; channel < g.channels; ++channel) {
      for (std::int64_t slot = 0; slot < place.slots(); ++slot) {
        const location at = place.at(channel, slot);
        REQUIRE(inside(at, g));
        REQUIRE(at.channel == channel);
        REQUIRE(place.slot_at(at) == slot);
        seen.insert({at.channel, at.chip, at.die, at.plane, at.block, at.page});
      }
    }
    CHECK(static_cast<std::int64_t>(seen.size()) == g.pages_total());
  }
}

TEST_CASE(
    "placement: the whole drive striped channel, chip, die, plane, and page_id says the same") {
  const geometry g{.channels = 3, .chips = 2, .dies = 2, .planes = 2, .blocks = 4, .pages = 5};
  const placement place{g};
  std::int64_t n = 0;
  for (int block = 0; block < g.blocks; ++block)
    for (int page = 0; page < g.pages; ++page)
      for (int plane = 0; plane < g.planes; ++plane)
        for (int die = 0; die < g.dies; ++die)
          for (int chip = 0; chip < g.chips; ++chip)
            for (int channel = 0; channel < g.channels; ++channel, ++n) {
              const location expected{channel, chip, die, plane, block, page};
              REQUIRE(place.striped(n) == expected);
              REQUIRE(place.sequence(expected) == n);
              REQUIRE(place(instinfer::page_id{static_cast<std::uint32_t>(n)}) == expected);
            }
  CHECK(n == g.pages_total());
}

TEST_CASE("placement: coordinates outside are named") {
  const geometry g{.channels = 2, .chips = 2, .blocks = 3, .pages = 4};
  const placement place{g};
  CHECK_THROWS_AS((void)place.at(2, 0), instinfer::bad_argument);
  CHECK_THROWS_AS((void)place.at(-1, 0), instinfer::bad_argument);
  CHECK_THROWS_AS((void)place.at(0, place.slots()), instinfer::bad_argument);
  CHECK_THROWS_AS((void)place.at(0, -1), instinfer::bad_argument);
  CHECK_THROWS_AS((void)place.slot_at({.block = 3}), instinfer::bad_argument);
  CHECK_THROWS_AS((void)placement{geometry{.chips = 0}}, instinfer::bad_argument);
  try {
    (void)place.slot_at({.chip = 2, .page = 1});
  } catch (const instinfer::bad_argument& e) {
    CHECK(std::string(e.what()).find("chip 2") != std::string::npos);
  }
}

}  // namespace instinfer::test_placement
