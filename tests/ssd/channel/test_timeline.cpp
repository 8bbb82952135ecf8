// The timeline against the reference simulator's table to the nanosecond, against the event-driven
// drive to the tick, and its properties.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <random>
#include <string>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/spec/placement.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "tests/support/random_batches.hpp"

namespace instinfer::test_timeline {

using flash::array_operation;
using flash::batch_times;
using flash::geometry;
using flash::location;
using flash::timeline;
using flash::timing;
using oracle::check_against_oracle;
using oracle::pick;
using oracle::random_case;
using oracle::replay;
using oracle::striped;

namespace {

static_assert(flash::BusArbitration<flash::data_out_first>);
static_assert(flash::BusArbitration<flash::command_first>);
static_assert(!flash::BusArbitration<int>);

struct table_row {
  std::int32_t page_kib;
  std::int32_t planes;
  std::int64_t read_us;
  std::int64_t pages;
  std::int64_t makespan_ns;
};

// 8 channels of 4 chips, with the reference simulator's page times: whole ns per two bytes.
struct table_drive {
  geometry shape;
  timing times;

  explicit table_drive(const table_row& row)
      : shape{.channels = 8,
              .chips = 4,
              .dies = 1,
              .planes = row.planes,
              .blocks = 64,
              .pages = 256,
              .page_bytes = row.page_kib * 1024},
        times{.read_ps = row.read_us * flash::ps_per_us,
              .program_ps = 650 * flash::ps_per_us,
              .erase_ps = 3'500 * flash::ps_per_us,
              .page_transfer_ps = (row.page_kib == 4   ? 2920
                                   : row.page_kib == 8 ? 5850
                                                       : 11700) *
                                  flash::ps_per_ns} {}
};

}  // namespace

TEST_CASE("timeline: rows of the reference simulator, to the nanosecond") {
  const table_row rows[] = {
      {4, 1, 45, 1, 48'230},       {4, 1, 45, 32, 56'990},       {4, 1, 45, 33, 105'220},
      {4, 1, 45, 1000, 1'814'920}, {4, 1, 45, 4096, 7'294'720},  {4, 2, 45, 64, 69'320},
      {4, 2, 45, 65, 117'550},     {4, 2, 45, 1000, 1'100'360},  {16, 2, 45, 64, 139'560},
      {16, 2, 45, 100, 244'020},   {16, 2, 12, 1000, 1'669'860},
  };
  for (const table_row& row : rows) {
    INFO("page " << row.page_kib << " KiB, planes " << row.planes << ", pages " << row.pages);
    const table_drive table{row};
    for (const flash::drive_rules& rules : {flash::drive_rules{}, flash::mqsim_request}) {
      timeline<> drive{table.shape, table.times, rules};
      CHECK(drive.read(striped(table.shape, row.pages)).makespan_ns() == row.makespan_ns);
    }
  }
}

// 2000 (PC(2) + 2 T + tPROG), and the last chip starts 3 (PC(2) + 2 T) late. The reference
// simulator's scheduler and flash, run without its host and cache, give this value too; its
// whole-device run adds 80 ns once, outside of the flash.
TEST_CASE("timeline: the sequential write row comes out at the formula's value") {
  const table_drive table{{4, 2, 45, 0, 0}};
  timeline<> drive{table.shape, table.times};
  const batch_times times = drive.program(striped(table.shape, 2000 * 64));
  CHECK(times.makespan_ns() == 1'314'055'051);
  CHECK(times.multi_plane_commands == times.commands);
}

TEST_CASE("timeline: equal to the event-driven drive, every page, every rule") {
  for (unsigned seed = 1; seed <= 250; ++seed) {
    INFO("seed " << seed);
    const random_case random{seed};
    for (const auto pair : {flash::pairing::none, flash::pairing::same_page,
                            flash::pairing::same_block_and_page, flash::pairing::any}) {
      for (const auto arrive : {flash::arrival::together, flash::arrival::one_by_one}) {
        INFO("pairing " << static_cast<int>(pair) << ", arrival " << static_cast<int>(arrive));
        for (const auto what :
             {array_operation::read, array_operation::program, array_operation::erase}) {
          INFO("operation " << static_cast<int>(what));
          check_against_oracle<flash::data_out_first>(random, what, {pair, arrive});
          check_against_oracle<flash::command_first>(random, what, {pair, arrive});
        }
      }
    }
  }
}

TEST_CASE("timeline: equal to the event-driven drive on bursts of random pages of the presets") {
  for (unsigned seed = 1; seed <= 3; ++seed) {
    INFO("seed " << seed);
    for (const flash::drive_spec& preset :
         {flash::instcsd, flash::pcie5_16ch, flash::slc_low_latency}) {
      std::mt19937 random{seed};
      const flash::placement place{preset.geometry};
      random_case burst{seed};
      burst.shape = preset.geometry;
      burst.times = preset.timing;
      burst.pages.clear();
      for (int i = 0; i < 2000; ++i) {
        burst.pages.push_back(
            place.striped(std::uniform_int_distribution<std::int64_t>{0, 200'000}(random)));
      }
      check_against_oracle<flash::data_out_first>(burst, array_operation::read, {});
      check_against_oracle<flash::command_first>(burst, array_operation::read, {});
    }
  }
}

TEST_CASE("timeline: never faster than a bus or a die, and busy times add up") {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    INFO("seed " << seed);
    const random_case random{seed};
    for (const auto what :
         {array_operation::read, array_operation::program, array_operation::erase}) {
      timeline<> drive{random.shape, random.times};
      std::vector<std::int64_t> finish(random.pages.size());
      const batch_times times = replay(drive, what, random.pages, finish);
      CHECK(times.makespan_ticks == *std::ranges::max_element(finish));
      std::int64_t pages = 0;
      for (const flash::channel_load& channel : times.channels) {
        CHECK(channel.bus_ticks() <= channel.end_ticks);
        CHECK(channel.data_ticks == (what == array_operation::erase
                                         ? 0
                                         : channel.pages * drive.scale().page_transfer_ticks));
        pages += channel.pages;
      }
      CHECK(pages == static_cast<std::int64_t>(random.pages.size()));
      for (const flash::die_load& die : times.dies) {
        CHECK(die.array_ticks <= die.held_ticks);
        CHECK(die.held_ticks <= times.makespan_ticks);
      }
    }
  }
}

TEST_CASE("timeline: channels do not feel each other") {
  for (unsigned seed = 1; seed <= 50; ++seed) {
    INFO("seed " << seed);
    random_case random{seed};
    random.shape.channels = 4;
    for (std::size_t i = 0; i < random.pages.size(); ++i) {
      random.pages[i].channel = static_cast<std::int32_t>(i * 7 % 4);
    }
    timeline<> drive{random.shape, random.times};
    std::vector<std::int64_t> finish(random.pages.size());
    drive.read(random.pages, finish);

    // Another interleaving of the channels, order within each kept: every page finishes as before.
    std::vector<std::size_t> order(random.pages.size());
    for (std::size_t i = 0; i < order.size(); ++i) {
      order[i] = i;
    }
    std::ranges::stable_sort(order, {}, [&](std::size_t i) { return random.pages[i].channel; });
    std::vector<location> sorted;
    for (const std::size_t i : order) {
      sorted.push_back(random.pages[i]);
    }
    std::vector<std::int64_t> sorted_finish(sorted.size());
    drive.read(sorted, sorted_finish);
    for (std::size_t i = 0; i < order.size(); ++i) {
      REQUIRE(sorted_finish[i] == finish[order[i]]);
    }

    // Shuffling channel 0 leaves the others' pages where they were.
    std::vector<location> shuffled = random.pages;
    std::vector<location> of_channel_0;
    std::ranges::copy_if(shuffled, std::back_inserter(of_channel_0),
                         [](const location& at) { return at.channel == 0; });
    std::shuffle(of_channel_0.begin(), of_channel_0.end(), std::mt19937{seed});
    std::size_t next = 0;
    for (location& at : shuffled) {
      at = at.channel == 0 ? of_channel_0[next++] : at;
    }
    std::vector<std::int64_t> shuffled_finish(shuffled.size());
    drive.read(shuffled, shuffled_finish);
    for (std::size_t i = 0; i < shuffled.size(); ++i) {
      REQUIRE((shuffled[i].channel == 0 || shuffled_finish[i] == finish[i]));
    }
  }
}

TEST_CASE("timeline: no page, one page, and the same page twice") {
  const flash::drive_spec drive_of = flash::instcsd;
  timeline<> drive{drive_of.geometry, drive_of.timing};
  CHECK(drive.read({}).makespan_ticks == 0);
  CHECK(drive.program({}).pages == 0);
  CHECK(drive.erase({}).commands == 0);

  // RC(1) + tR + 20 ns + 4096 B / 1.4 GB/s, in sevenths of a picosecond.
  const std::array one{
      location{.channel = 5, .chip = 3, .die = 2, .plane = 1, .block = 7, .page = 9}};
  const std::int64_t alone = (290'000 + 45'000'000 + 20'000) * 7 + 4096 * 5000;
  std::array<std::int64_t, 1> finish{};
  const batch_times times = drive.read(one, finish);
  CHECK(times.makespan_ticks == alone);
  CHECK(finish[0] == alone);
  CHECK(times.ticks_per_ps == 7);
  CHECK(times.makespan_ps() == 48'235'714);
  CHECK(times.makespan_ns() == 48'236);
  CHECK(times.channels[5].pages == 1);
  CHECK(times.dies[(5 * 4 + 2) * 4 + 3].held_ticks == alone);

  const std::array twice{one[0], one[0]};
  CHECK(drive.read(twice).makespan_ticks == 2 * alone);  // a plane has one page register
}

TEST_CASE("timeline: dies of one chip overlap, planes of one die share a command") {
  const geometry g{.channels = 1, .chips = 1, .dies = 2, .planes = 2, .blocks = 2, .pages = 2};
  const timing t = flash::instcsd.timing;
  timeline<> drive{g, t};
  const std::int64_t page = drive.scale().page_transfer_ticks;
  const std::array two_dies{location{.die = 0}, location{.die = 1}};
  CHECK(drive.read(two_dies).makespan_ticks == (290'000 + 45'020'000) * 7 + 2 * page);
  const std::array two_planes{location{.plane = 0}, location{.plane = 1}};
  CHECK(drive.read(two_planes).makespan_ticks == (940'000 + 45'020'000) * 7 + 2 * page);
  const std::array other_block{location{.plane = 0}, location{.plane = 1, .block = 1}};
  CHECK(drive.read(other_block).multi_plane_commands == 0);
  timeline<> any_block{g, t, {.pair = flash::pairing::same_page}};
  CHECK(any_block.read(other_block).multi_plane_commands == 1);
  const std::array other_page{location{.plane = 0}, location{.plane = 1, .page = 1}};
  CHECK(any_block.read(other_page).multi_plane_commands == 0);
  CHECK(drive.erase(other_page).multi_plane_commands == 1);
  timeline<> single_requests{g, t, {.arrive = flash::arrival::one_by_one}};
  CHECK(single_requests.read(two_planes).multi_plane_commands == 0);
}

TEST_CASE("timeline: commands first is a different model") {
  const table_drive table{{4, 1, 45, 0, 0}};
  std::mt19937 random{7};
  std::vector<location> pages;
  for (int i = 0; i < 4000; ++i) {
    pages.push_back(flash::placement{table.shape}.striped(pick(random, 0, 100'000)));
  }
  timeline<flash::data_out_first> data_first{table.shape, table.times};
  timeline<flash::command_first> commands_first{table.shape, table.times};
  CHECK(commands_first.read(pages).makespan_ticks < data_first.read(pages).makespan_ticks);
}

namespace {

// A user's policy with a state: turns about.
struct alternating {
  bool data_next = true;
  flash::bus_turn choose() {
    data_next = !data_next;
    return data_next ? flash::bus_turn::command : flash::bus_turn::data_out;
  }
};
static_assert(flash::BusArbitration<alternating>);

}  // namespace

TEST_CASE("timeline: a user's arbitration, and repeatable batches") {
  const random_case random{3};
  timeline<alternating> drive{random.shape, random.times};
  std::vector<std::int64_t> first(random.pages.size()), second(random.pages.size());
  drive.read(random.pages, first);
  drive.program(random.pages);
  drive.read(random.pages, second);
  CHECK(first == second);
}

TEST_CASE("timeline: events tile the bus and the dies, and agree with the busy times") {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    INFO("seed " << seed);
    const random_case random{seed};
    for (const auto what :
         {array_operation::read, array_operation::program, array_operation::erase}) {
      std::vector<flash::event> events;
      const auto record = [&](const flash::event& e) { events.push_back(e); };
      std::vector<std::int64_t> finish(random.pages.size());
      timeline<> drive{random.shape, random.times};
      const batch_times times =
          what == array_operation::read      ? drive.read(random.pages, finish, record)
          : what == array_operation::program ? drive.program(random.pages, finish, record)
                                             : drive.erase(random.pages, finish, record);
      const auto channels = static_cast<std::size_t>(random.shape.channels);
      std::vector<std::int64_t> bus_free(channels), commands(channels), data(channels);
      std::vector<int> last_events(random.pages.size());
      for (const flash::event& e : events) {
        const auto channel = static_cast<std::size_t>(e.channel);
        const bool is_command = e.kind == flash::event_kind::command;
        const bool is_data =
            e.kind == flash::event_kind::data_out || e.kind == flash::event_kind::data_in;
        if (is_command || is_data) {
          REQUIRE(e.begin_ticks >= bus_free[channel]);
          bus_free[channel] = e.end_ticks;
          (is_command ? commands : data)[channel] += e.end_ticks - e.begin_ticks;
        }
        const bool is_last = what == array_operation::read ? e.kind == flash::event_kind::data_out
                             : what == array_operation::program
                                 ? e.kind == flash::event_kind::program
                                 : e.kind == flash::event_kind::erase;
        if (is_last) {
          REQUIRE(e.end_ticks == finish[e.index]);
          ++last_events[e.index];
        }
        REQUIRE(e.plane == random.pages[e.index].plane);
        REQUIRE(!std::string(flash::event_name(e.kind)).empty());
      }
      REQUIRE(std::ranges::count(last_events, 1) ==
              static_cast<std::ptrdiff_t>(random.pages.size()));
      for (std::size_t c = 0; c < channels; ++c) {
        REQUIRE(commands[c] == times.channels[c].command_ticks);
        REQUIRE(data[c] == times.channels[c].data_ticks);
      }
    }
  }
}

TEST_CASE("timeline: bad input is refused with a sentence, and nothing is written") {
  const geometry g{.channels = 2, .chips = 2, .blocks = 2, .pages = 2};
  const timing t = flash::instcsd.timing;
  timeline<> drive{g, t};
  const std::array pages{location{}, location{.chip = 2}};
  std::array<std::int64_t, 2> finish{-1, -1};
  try {
    drive.read(pages, finish);
    FAIL("a page outside of the geometry was accepted");
  } catch (const instinfer::bad_argument& e) {
    CHECK(std::string(e.what()).find("page 1") != std::string::npos);
    CHECK(std::string(e.what()).find("chip 2") != std::string::npos);
  }
  CHECK(finish == std::array<std::int64_t, 2>{-1, -1});
  const std::array good{location{}};
  CHECK_THROWS_AS(drive.read(good, finish), instinfer::bad_argument);
  CHECK_THROWS_AS(timeline<>(geometry{.planes = 0}, t), instinfer::bad_argument);
  CHECK_THROWS_AS(timeline<>(g, timing{}), instinfer::bad_argument);
  timing odd = t;
  odd.bus_bytes_per_s = 1'333'333'331;
  timeline<> odd_drive{g, odd};
  CHECK(odd_drive.read(good).makespan_ns() > 48'000);
  const std::vector<location> many(1000);
  CHECK_THROWS_AS(odd_drive.erase(many), instinfer::bad_argument);  // 3.5 s of 1.3e9 ticks a ps
}

}  // namespace instinfer::test_timeline
