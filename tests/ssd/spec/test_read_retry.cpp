// Read retry: the draw of further reads, and what they cost.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "tests/support/random_batches.hpp"

namespace instinfer::test_read_retry {

using flash::array_operation;
using flash::drive_rules;
using flash::geometry;
using flash::location;
using flash::page_type;
using flash::page_types;
using flash::timeline;
using flash::timing;
using oracle::pick;
using oracle::random_case;

TEST_CASE("read retry: the draw has the stated distribution and depends on place and seed alone") {
  constexpr flash::read_retry half = flash::independent_failures(500'000'000, 5, 42);
  static_assert(half.at_least[4] == 31'250'000);
  const auto nth = [place = flash::placement{flash::instcsd.geometry}](std::int64_t page) {
    return place.striped(page);
  };
  std::array<int, 6> counts{};
  const int draws = 1 << 20;
  for (int page = 0; page < draws; ++page) {
    ++counts[static_cast<std::size_t>(half.draw(nth(page)))];
  }
  double expected = draws / 2.0;
  for (std::size_t n = 0; n < 5; ++n) {
    CHECK(counts[n] == doctest::Approx(expected).epsilon(0.02));  // 5 sigma at n = 4
    expected /= 2;
  }
  CHECK(counts[5] == doctest::Approx(draws / 32.0).epsilon(0.03));

  std::int64_t sum = 0;
  for (std::int64_t page = 0; page < 4'000'000; ++page) {
    sum += flash::worst_read_retry.draw(nth(page));
  }
  CHECK(static_cast<double>(sum) / 4e6 == doctest::Approx(0.003).epsilon(0.05));
  CHECK(flash::worst_read_retry.mean() == doctest::Approx(0.003).epsilon(1e-6));
  CHECK(flash::read_retry{}.draw({}) == 0);
  CHECK(flash::independent_failures(flash::retry_scale, 5).draw({}) == 5);
}

TEST_CASE("read retry: every coordinate and the seed matter to the draw") {
  for (int coordinate = 0; coordinate < 7; ++coordinate) {
    INFO("coordinate " << coordinate);
    int failing = 0;
    for (std::int32_t n = 0; n < 4096; ++n) {
      location at{1, 2, 3, 1, 17, 100};
      std::int32_t* const all[] = {&at.channel, &at.chip, &at.die, &at.plane, &at.block, &at.page};
      std::uint64_t seed = 9;
      if (coordinate < 6) {
        *all[coordinate] = n;
      } else {
        seed = static_cast<std::uint64_t>(n);
      }
      failing += flash::independent_failures(500'000'000, 1, seed).draw(at);
    }
    CHECK(failing == doctest::Approx(2048).epsilon(0.08));  // 5 sigma
  }
}

TEST_CASE("read retry: each further read is another array time, for all planes of the command") {
  const geometry g{.channels = 1, .planes = 2, .pages = 64};
  const timing t = flash::vnand_v6_timing;
  timeline<> always{g, t, {.retry = flash::independent_failures(flash::retry_scale, 3)}};
  const std::int64_t page = always.scale().page_transfer_ticks;
  const std::array both{location{.plane = 0}, location{.plane = 1}};
  const flash::batch_times times = always.read(both);
  CHECK(times.makespan_ticks == (940'000 + 4 * 45'020'000) * 7 + 2 * page);
  CHECK(times.dies[0].array_ticks == 4 * 45'020'000 * 7);
  CHECK(always.program(both).makespan_ticks ==
        std::int64_t{7} * (1'177'000 + 450'000'000) + 2 * page);
}

TEST_CASE("read retry: a page reads alike in any batch, and other seeds read otherwise") {
  const random_case random{11};
  const auto alone = [&](const location& at, std::uint64_t seed) {
    timeline<> drive{
        random.shape, random.times, {.retry = flash::independent_failures(400'000'000, 5, seed)}};
    const std::array one{at};
    return drive.read(one).dies[0].array_ticks + drive.read(one).makespan_ticks;
  };
  bool seeds_differ = false;
  for (const location& at : random.pages) {
    CHECK(alone(at, 1) == alone(at, 1));
    seeds_differ = seeds_differ || alone(at, 1) != alone(at, 2);
  }
  CHECK(seeds_differ);
}

}  // namespace instinfer::test_read_retry
