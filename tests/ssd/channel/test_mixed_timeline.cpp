// Mixed streams: against the drive that looks at everything, to the tick; against batches;
// priorities, suspensions and their cost by hand; bad input.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "instinfer/ssd/channel/mixed_timeline.hpp"
#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/report/stream_latencies.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "support/mixed_drive.hpp"
#include "tests/support/random_batches.hpp"

namespace instinfer::test_mixed_timeline {

using flash::array_operation;
using flash::drive_rules;
using flash::geometry;
using flash::io_request;
using flash::location;
using flash::mixed_timeline;
using flash::timing;
using oracle::pick;
using oracle::random_case;

namespace {

template <flash::suspension S>
constexpr bool as_template_argument = S.of_programs;
static_assert(as_template_argument<flash::suspension{.of_programs = true}>);
static_assert(!flash::suspension{}.allows(array_operation::program));

struct random_stream {
  random_case drive;
  drive_rules rules;
  std::vector<io_request> requests;

  explicit random_stream(unsigned seed) : drive{seed} {
    std::mt19937 random{seed * 104729};
    const std::int64_t unit = pick(random, 0, 1) != 0 ? 290'000 : 1;  // multiples provoke ties
    const auto duration = [&](int most_us) {
      return std::int64_t{pick(random, 0, most_us * 1'000'000)} / unit * unit;
    };
    timing& t = drive.times;
    t.types.count = pick(random, 1, 3);
    t.types.read_middle_ps = t.types.count == 3 ? duration(100) + 1 : 0;
    t.types.read_upper_ps = t.types.count >= 2 ? duration(100) + 1 : 0;
    t.decode_ps = pick(random, 0, 1) * duration(10);
    rules.pair = static_cast<flash::pairing>(pick(random, 0, 2));
    rules.cache_read = seed % 2 == 0;
    t.cache_move_ps = pick(random, 0, 2) == 0 ? 0 : duration(5);
    if (pick(random, 0, 2) == 0) {
      rules.retry = flash::independent_failures(300'000'000, 5, seed);
    }
    flash::suspension& s = rules.suspend;
    s.of_programs = pick(random, 0, 3) != 0;
    s.of_erases = pick(random, 0, 3) != 0;
    s.program_ps = pick(random, 0, 3) == 0 ? 0 : duration(120);
    s.erase_ps = duration(700);
    s.command_ps = pick(random, 0, 3) * 145'000;
    s.resume_ps = pick(random, 0, 1) * duration(10);
    s.least_run_ps = pick(random, 0, 2) == 0 ? 0 : duration(200);
    const int priorities = pick(random, 1, flash::max_priorities);
    const std::int64_t span_us = pick(random, 0, 3) == 0 ? 0 : pick(random, 1, 3000);
    const int mix = pick(random, 0, 2);
    for (const location& at : drive.pages) {
      const int draw = pick(random, 0, 9);
      const array_operation what = draw < (mix == 0 ? 9 : 6) ? array_operation::read
                                   : draw < 9                ? array_operation::program
                                                             : array_operation::erase;
      int priority = pick(random, 0, priorities - 1);
      if (mix == 2) {  // reads before writes before erases
        priority = static_cast<int>(what);
      }
      const bool part = what == array_operation::read && seed % 3 == 0;
      requests.push_back(
          {what, at,
           span_us == 0
               ? 0
               : std::uniform_int_distribution<std::int64_t>{0, span_us * 1'000'000}(random) /
                     unit * unit,
           priority, part ? pick(random, 0, drive.shape.codewords_per_page()) : 0});
    }
    std::ranges::stable_sort(requests, {}, &io_request::arrival_ps);
  }
};

template <class Arbitration>
std::int64_t check_against_oracle(const random_stream& random) {
  std::vector<std::int64_t> finish(random.requests.size(), -1);
  mixed_timeline<Arbitration> drive{random.drive.shape, random.drive.times, random.rules};
  const flash::batch_times times = drive.run(random.requests, finish);
  oracle::mixed_drive slow{random.drive.shape, random.drive.times, random.rules,
                           std::is_same_v<Arbitration, flash::data_out_first>};
  const oracle::mixed_drive::outcome expected = slow.run(random.requests);
  REQUIRE(times.makespan_ticks == expected.makespan);
  REQUIRE(times.commands == expected.commands);
  REQUIRE(times.suspensions == expected.suspensions);
  REQUIRE(finish == expected.finish);
  for (const auto& [place, ticks] : expected.array) {
    REQUIRE(times
                .dies[static_cast<std::size_t>(place.first * random.drive.shape.dies_per_channel() +
                                               place.second)]
                .array_ticks == ticks);
  }
  return times.suspensions;
}

constexpr geometry one_die{.channels = 1, .pages = 64};
constexpr timing v6 = flash::vnand_v6_timing;
constexpr timing whole_ns = [] {  // a page takes 3 us on the bus: sums by hand
  timing t = v6;
  t.page_transfer_ps = 3 * flash::ps_per_us;
  return t;
}();
constexpr drive_rules suspending{.suspend = {.of_programs = true, .of_erases = true}};

}  // namespace

TEST_CASE("mixed: equal to the drive that looks at everything, every request") {
  std::int64_t suspensions = 0;
  for (unsigned seed = 1; seed <= 500; ++seed) {
    INFO("seed " << seed);
    const random_stream random{seed};
    suspensions += check_against_oracle<flash::data_out_first>(random);
    suspensions += check_against_oracle<flash::command_first>(random);
  }
  CHECK(suspensions > 1000);
}

TEST_CASE("mixed: one operation at time 0 takes the ticks of a batch") {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    INFO("seed " << seed);
    random_stream random{seed};
    for (const array_operation what :
         {array_operation::read, array_operation::program, array_operation::erase}) {
      std::vector<io_request> requests;
      for (const location& at : random.drive.pages) {
        requests.push_back({.what = what, .where = at, .priority = 3});
      }
      const auto compare = [&]<class Arbitration>(Arbitration) {
        mixed_timeline<Arbitration> mixed{random.drive.shape, random.drive.times, random.rules};
        flash::timeline<Arbitration> batch{random.drive.shape,
                                           random.drive.times,
                                           {.pair = random.rules.pair,
                                            .cache_read = random.rules.cache_read,
                                            .retry = random.rules.retry}};
        std::vector<std::int64_t> one(requests.size()), other(requests.size());
        const flash::batch_times a = mixed.run(requests, one);
        const flash::batch_times b = oracle::replay(batch, what, random.drive.pages, other);
        REQUIRE(one == other);
        REQUIRE(a.makespan_ticks == b.makespan_ticks);
        REQUIRE(a.multi_plane_commands == b.multi_plane_commands);
        for (std::size_t c = 0; c < a.channels.size(); ++c) {
          REQUIRE(a.channels[c].command_ticks == b.channels[c].command_ticks);
          REQUIRE(a.channels[c].data_ticks == b.channels[c].data_ticks);
        }
        for (std::size_t d = 0; d < a.dies.size(); ++d) {
          REQUIRE(a.dies[d].array_ticks == b.dies[d].array_ticks);
          REQUIRE(a.dies[d].held_ticks == b.dies[d].held_ticks);
        }
      };
      compare(flash::data_out_first{});
      compare(flash::command_first{});
    }
  }
}

TEST_CASE(
    "mixed: with cache read a die reads on while a page leaves; a program waits for both registers") {
  timing t = whole_ns;
  t.cache_move_ps = flash::ps_per_us;
  const std::vector<io_request> requests{{.where = {.page = 0}},
                                         {.where = {.page = 1}},
                                         {.what = array_operation::program, .where = {.page = 2}}};
  std::vector<std::int64_t> finish(3);
  mixed_timeline<flash::command_first> drive{one_die, t, {.cache_read = true}};
  drive.run(requests, finish);
  // Read 0: 290 ns of command, 45,020 of array, 1,000 to move: at 46,310 the next command goes, 290
  // ns; then 3,000 of data.
  CHECK(finish[0] == 49'600'000);
  // Read 1: its array from 46,600 to 91,620, moved at 92,620, data until 95,620.
  CHECK(finish[1] == 95'620'000);
  // The program's command only then: 361 ns and 3,000 of data, then tPROG.
  CHECK(finish[2] == 95'620'000 + 3'361'000 + t.program_ps);
}

// RC + tR + 20 ns + T = 48,310 ns for a read alone; a program's bus time is 361 ns + T.
TEST_CASE("mixed: a read waits for a program, or suspends it, at the stated cost") {
  const std::array requests{
      io_request{.what = array_operation::program, .where = {}, .priority = 1},
      io_request{.where = {.page = 9}, .arrival_ps = 10 * flash::ps_per_us}};
  std::array<std::int64_t, 2> finish{};
  mixed_timeline<> waits{one_die, whole_ns};
  CHECK(waits.run(requests, finish).suspensions == 0);
  CHECK(finish[0] == 3'361'000 + 450'000'000);
  CHECK(finish[1] == finish[0] + 48'310'000);

  mixed_timeline<> suspends{one_die, whole_ns, suspending};
  const flash::batch_times times = suspends.run(requests, finish);
  CHECK(times.suspensions == 1);
  // At 10 us: 140 ns of cycles, 100 us until suspended, the read; then 140 ns and 5 us to resume.
  const std::int64_t suspended = 10'000'000 + 140'000;
  CHECK(finish[1] == suspended + 100'000'000 + 48'310'000);
  const std::int64_t left = 3'361'000 + 450'000'000 - suspended;
  CHECK(finish[0] == finish[1] + 140'000 + 5'000'000 + left);
  CHECK(times.dies[0].array_ticks == 450'000'000 + 45'020'000);
  CHECK(times.dies[0].held_ticks == finish[0]);
  CHECK(times.channels[0].command_ticks == 361'000 + 290'000 + 2 * 140'000);

  // Equal priority, a write, or too late to be worth it: no suspension.
  std::array other = requests;
  other[1].priority = 1;
  CHECK(suspends.run(other).suspensions == 0);
  other = requests;
  other[1].what = array_operation::program;
  CHECK(suspends.run(other).suspensions == 0);
  other = requests;
  other[1].arrival_ps = 3'361'000 + 450'000'000 - 100'140'000;
  CHECK(suspends.run(other).suspensions == 0);
  other[1].arrival_ps -= 1;
  CHECK(suspends.run(other).suspensions == 1);
  mixed_timeline<> only_erases{one_die, whole_ns, {.suspend = {.of_erases = true}}};
  CHECK(only_erases.run(requests).suspensions == 0);
}

TEST_CASE("mixed: a resumed program runs for a while before it is suspended again") {
  std::vector<io_request> requests{{.what = array_operation::program, .where = {}, .priority = 1}};
  for (std::int64_t n = 0; n < 2; ++n) {
    requests.push_back({.where = {.page = 9}, .arrival_ps = (10 + 200 * n) * flash::ps_per_us});
  }
  std::vector<std::int64_t> finish(3);
  mixed_timeline<> drive{one_die, whole_ns, suspending};
  CHECK(drive.run(requests, finish).suspensions == 2);
  const std::int64_t resumed = finish[1] + 140'000 + 5'000'000;
  // The second read is there, but the program runs its 100 us.
  CHECK(finish[2] == resumed + 100'000'000 + 140'000 + 100'000'000 + 48'310'000);
}

TEST_CASE("mixed: attention reads before background writes") {
  std::mt19937 random{3};
  const flash::placement place{flash::instcsd.geometry};
  std::vector<io_request> requests;
  for (int i = 0; i < 4000; ++i) {
    const bool reads = i % 4 != 0;
    requests.push_back({.what = reads ? array_operation::read : array_operation::program,
                        .where = place.striped(pick(random, 0, 400'000)),
                        .arrival_ps = i * flash::ps_per_us / 2,
                        .priority = reads ? 0 : 1});
  }
  const auto reads_of = [&](std::span<const io_request> stream, const drive_rules& rules) {
    std::vector<std::int64_t> finish(stream.size());
    mixed_timeline<> drive{flash::instcsd.geometry, flash::instcsd.timing, rules};
    drive.run(stream, finish);
    std::vector<std::int64_t> scratch;
    return flash::stream_latencies(stream, finish, drive.scale(), array_operation::read, 0,
                                   scratch);
  };
  const flash::latencies ranked = reads_of(requests, {});
  drive_rules quick = suspending;
  quick.suspend.program_ps = 20 * flash::ps_per_us;
  const flash::latencies with_suspend = reads_of(requests, quick);
  std::vector<io_request> equal = requests;
  for (io_request& r : equal) {
    r.priority = 0;
  }
  const flash::latencies unranked = reads_of(equal, {});
  CHECK(ranked.p99_ticks < unranked.p99_ticks);
  CHECK(with_suspend.p99_ticks < ranked.p99_ticks);
}

TEST_CASE("mixed: bus events ascend, each operation's array runs add up to its time") {
  for (unsigned seed = 1; seed <= 100; ++seed) {
    INFO("seed " << seed);
    const random_stream random{seed};
    mixed_timeline<> drive{random.drive.shape, random.drive.times, random.rules};
    std::vector<std::int64_t> finish(random.requests.size()), array(random.requests.size());
    std::int64_t bus_free = 0, channel = -1, commands = 0, data = 0, suspensions = 0;
    const auto record = [&](const flash::event& e) {
      using enum flash::event_kind;
      if (e.kind == array_read || e.kind == program || e.kind == erase) {
        array[e.index] += e.end_ticks - e.begin_ticks;
        return;
      }
      if (e.channel != channel) {
        channel = e.channel;
        bus_free = 0;
      }
      REQUIRE(e.begin_ticks >= bus_free);
      bus_free = e.end_ticks;
      (e.kind == data_in || e.kind == data_out ? data : commands) += e.end_ticks - e.begin_ticks;
      suspensions += e.kind == suspend ? 1 : 0;
      REQUIRE(e.plane == random.requests[e.index].where.plane);
      REQUIRE(!std::string(flash::event_name(e.kind)).empty());
    };
    const flash::batch_times times = drive.run(random.requests, finish, record);
    std::int64_t booked_commands = 0, booked_data = 0;
    for (const flash::channel_load& load : times.channels) {
      booked_commands += load.command_ticks;
      booked_data += load.data_ticks;
    }
    CHECK(commands == booked_commands);
    CHECK(data == booked_data);
    CHECK(suspensions == times.suspensions);
    for (std::size_t i = 0; i < array.size(); ++i) {
      const io_request& r = random.requests[i];
      REQUIRE(finish[i] > drive.scale().from_ps(r.arrival_ps));
      if (r.what != array_operation::read) {
        REQUIRE(array[i] == drive.scale().from_ps(r.what == array_operation::program
                                                      ? random.drive.times.program_ps
                                                      : random.drive.times.erase_ps));
      }
    }
    for (const flash::die_load& die : times.dies) {
      REQUIRE(die.array_ticks <= die.held_ticks);
    }
  }
}

TEST_CASE("mixed: no request, repeatable, and late arrivals") {
  mixed_timeline<> drive{one_die, whole_ns};
  CHECK(drive.run({}).makespan_ticks == 0);
  const std::array late{io_request{.arrival_ps = flash::ps_per_s}};
  CHECK(drive.run(late).makespan_ticks == flash::ps_per_s + 48'310'000);
  CHECK(drive.run(late).makespan_ticks == flash::ps_per_s + 48'310'000);
}

TEST_CASE("mixed: bad input is refused with a sentence, and nothing is written") {
  mixed_timeline<> drive{one_die, v6};
  std::array<std::int64_t, 2> finish{-1, -1};
  const auto complaint = [&](const io_request& a, const io_request& b) -> std::string {
    const std::array requests{a, b};
    try {
      drive.run(requests, finish);
    } catch (const instinfer::bad_argument& e) {
      CHECK(finish == std::array<std::int64_t, 2>{-1, -1});
      return e.what();
    }
    return "";
  };
  CHECK(complaint({.arrival_ps = 5}, {.arrival_ps = 4})
            .find("request 1 arrives at 4 ps, before the one in front of it") != std::string::npos);
  CHECK(complaint({.arrival_ps = -1}, {}).find("before time 0") != std::string::npos);
  CHECK(complaint({}, {.priority = 8}).find("priority 8") != std::string::npos);
  CHECK(complaint({}, {.priority = -1}).find("request 1 has priority -1") != std::string::npos);
  CHECK(complaint({}, {.where = {.page = 64}}).find("page 64") != std::string::npos);
  CHECK(complaint({}, {.arrival_ps = std::numeric_limits<std::int64_t>::max()})
            .find("overflow 63 bits") != std::string::npos);
  const std::array one{io_request{}};
  CHECK_THROWS_AS(drive.run(one, finish), instinfer::bad_argument);
  const auto rules_complaint = [](const flash::suspension& s) -> std::string {
    try {
      mixed_timeline<>{one_die, v6, {.suspend = s}};
    } catch (const instinfer::bad_argument& e) {
      return e.what();
    }
    return "";
  };
  CHECK(rules_complaint({.program_ps = -1}).find("program_ps") != std::string::npos);
  CHECK(rules_complaint({.erase_ps = -1}).find("erase_ps") != std::string::npos);
  CHECK(rules_complaint({.command_ps = -1}).find("command_ps") != std::string::npos);
  CHECK(rules_complaint({.resume_ps = flash::max_duration_ps + 1}).find("resume_ps") !=
        std::string::npos);
  CHECK(rules_complaint({.least_run_ps = -7}).find("least_run_ps") != std::string::npos);
  CHECK_THROWS_AS(mixed_timeline<>(one_die, timing{}), instinfer::bad_argument);
  CHECK_THROWS_AS(mixed_timeline<>(geometry{.dies = 0}, v6), instinfer::bad_argument);
}

}  // namespace instinfer::test_mixed_timeline
