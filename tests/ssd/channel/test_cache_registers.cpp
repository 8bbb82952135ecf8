// Cache read: the next array read while a page leaves, by closed forms and against the drive
// without.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "tests/support/random_batches.hpp"

namespace instinfer::test_cache_registers {

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
using oracle::random_options;

// One die, command first: while a page is on the bus the next array read runs, so each further page
// takes the command, the array and the move.
TEST_CASE("cache read: one die reads back to back, its data-outs hidden") {
  const geometry g{.channels = 1, .pages = 256};
  const timing t = flash::vnand_v6_timing;
  std::vector<location> pages;
  for (std::int32_t n = 0; n < 100; ++n) {
    pages.push_back({.page = n});
  }
  const std::int64_t step = (290'000 + 45'020'000 + 3'000'000) * 7;
  timeline<flash::command_first> cached{g, t, {.cache_read = true}};
  const std::int64_t page = cached.scale().page_transfer_ticks;
  CHECK(cached.read(pages).makespan_ticks == 100 * step + page);
  timeline<flash::command_first> plain{g, t};
  CHECK(plain.read(pages).makespan_ticks == 100 * (step - 3'000'000 * 7 + page));
  // Data first: the next command waits until the page is out, so only the move is added.
  timeline<flash::data_out_first> data_first{g, t, {.cache_read = true}};
  CHECK(data_first.read(pages).makespan_ticks == 100 * (step + page));
}

// A data-out longer than the array: the bus is never idle between the first and the last.
TEST_CASE("cache read: a slow bus is kept busy, and the array waits with its second page") {
  const geometry g{.channels = 1, .pages = 256};
  timing t = flash::slc_low_latency.timing;
  t.page_transfer_ps = 20 * flash::ps_per_us;
  t.cache_move_ps = 0;
  timeline<flash::command_first> drive{g, t, {.cache_read = true}};
  std::vector<location> pages(50);
  // The command is sent once the array register is free, between two data-outs.
  CHECK(drive.read(pages).makespan_ps() == 290'000 + 3'020'000 + 49 * 290'000 + 50 * 20'000'000);
}

TEST_CASE("cache read: commands first, then shorter on bursts than without") {
  std::mt19937 random{5};
  const flash::placement place{flash::instcsd.geometry};
  std::vector<location> pages;
  for (int i = 0; i < 4000; ++i) {
    pages.push_back(place.striped(pick(random, 0, 200'000)));
  }
  timing t = flash::instcsd.timing;
  t.cache_move_ps = 0;
  timeline<flash::command_first> plain{flash::instcsd.geometry, t};
  timeline<flash::command_first> cached{flash::instcsd.geometry, t, {.cache_read = true}};
  CHECK(cached.read(pages).makespan_ticks < plain.read(pages).makespan_ticks);
}

TEST_CASE("cache read: data first and moves that take no time are the drive without") {
  for (unsigned seed = 1; seed <= 100; ++seed) {
    INFO("seed " << seed);
    random_options random{seed};
    random.drive.times.cache_move_ps = 0;
    std::vector<std::int64_t> with(random.drive.pages.size()), without(with.size());
    random.rules.cache_read = true;
    timeline<> cached{random.drive.shape, random.drive.times, random.rules};
    cached.read(random.drive.pages, with);
    random.rules.cache_read = false;
    timeline<> plain{random.drive.shape, random.drive.times, random.rules};
    plain.read(random.drive.pages, without);
    REQUIRE(with == without);
  }
}

}  // namespace instinfer::test_cache_registers
