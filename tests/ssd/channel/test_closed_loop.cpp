// Closed loops: a drive that looks at everything is given the requests at the ticks at which the
// loop submitted them, and must end each at the loop's tick; and each submission must be an end.

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "instinfer/ssd/channel/closed_loop.hpp"
#include "instinfer/ssd/channel/timeline.hpp"
#include "support/mixed_drive.hpp"
#include "tests/support/random_batches.hpp"

namespace instinfer::test_closed_loop {

using flash::closed_loop;
using flash::queue_depth;
using flash::request_ticks;
using oracle::pick;
using oracle::random_case;

namespace {

// Request r + depth is submitted when r + 1 requests have ended: the ends, sorted, are the later
// submissions.
void check_depth(const std::vector<request_ticks>& times, std::size_t depth) {
  std::vector<std::int64_t> ends;
  for (const request_ticks& t : times) {
    ends.push_back(t.finished);
  }
  std::ranges::sort(ends);
  for (std::size_t r = 0; r < times.size(); ++r) {
    REQUIRE(times[r].submitted == (r < depth ? 0 : ends[r - depth]));
    REQUIRE(times[r].finished > times[r].submitted);
  }
}

template <class Arbitration>
void check_against_oracle(const random_case& random, const flash::drive_rules& rules,
                          const queue_depth& load) {
  const std::size_t requests = (random.pages.size() + load.request_pages - 1) / load.request_pages;
  std::vector<request_ticks> times(requests);
  closed_loop<Arbitration> drive{random.shape, random.times, rules};
  const flash::batch_times all = drive.read(random.pages, load, times);
  REQUIRE(drive.scale().ticks_per_ps == 1);
  check_depth(times, load.depth);

  std::vector<flash::io_request> stream;
  for (std::size_t i = 0; i < random.pages.size(); ++i) {
    stream.push_back(
        {.where = random.pages[i], .arrival_ps = times[i / load.request_pages].submitted});
  }
  oracle::mixed_drive slow{random.shape, random.times, rules,
                           std::is_same_v<Arbitration, flash::data_out_first>};
  const oracle::mixed_drive::outcome expected = slow.run(stream);
  REQUIRE(all.makespan_ticks == expected.makespan);
  REQUIRE(all.commands == expected.commands);
  for (std::size_t r = 0; r < requests; ++r) {
    std::int64_t end = 0;
    for (std::size_t i = r * load.request_pages;
         i < std::min((r + 1) * load.request_pages, random.pages.size()); ++i) {
      end = std::max(end, expected.finish[i]);
    }
    REQUIRE(times[r].finished == end);
  }
}

// Ticks are picoseconds, so that the oracle can be given any of them as an arrival.
random_case in_picoseconds(unsigned seed) {
  random_case random{seed};
  std::mt19937 more{seed * 31};
  random.shape.codeword_bytes = random.shape.page_bytes;
  if (random.times.page_transfer_ps == 0) {
    random.times.page_transfer_ps = pick(more, 1, 5'000'000);
  }
  random.times.decode_ps = pick(more, 0, 1) * pick(more, 0, 9'000'000);
  return random;
}

}  // namespace

TEST_CASE("closed loop: every request ends at the tick of a drive that looks at everything") {
  for (unsigned seed = 1; seed <= 120; ++seed) {
    CAPTURE(seed);
    const random_case random = in_picoseconds(seed);
    std::mt19937 more{seed};
    flash::drive_rules rules{.pair = static_cast<flash::pairing>(pick(more, 0, 2)),
                             .cache_read = pick(more, 0, 1) != 0};
    const queue_depth load{.depth = static_cast<std::size_t>(pick(more, 1, 40)),
                           .request_pages = static_cast<std::size_t>(pick(more, 1, 3))};
    CAPTURE(load.depth);
    CAPTURE(load.request_pages);
    check_against_oracle<flash::data_out_first>(random, rules, load);
    check_against_oracle<flash::command_first>(random, rules, load);
  }
}

TEST_CASE("closed loop: with room for all requests it is a batch, however the batch arrives") {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    const random_case random{seed};
    for (const flash::drive_rules& rules :
         {flash::drive_rules{}, flash::mqsim_request, flash::mqsim_burst}) {
      std::vector<std::int64_t> finish(random.pages.size());
      flash::timeline<> batch{random.shape, random.times, rules};
      const flash::batch_times expected = batch.read(random.pages, finish);
      closed_loop<> loop{random.shape, random.times, rules};
      std::vector<request_ticks> times(random.pages.size());
      const flash::batch_times all = loop.read(random.pages, {.depth = random.pages.size()}, times);
      REQUIRE(all.makespan_ticks == expected.makespan_ticks);
      REQUIRE(all.commands == expected.commands);
      for (std::size_t i = 0; i < times.size(); ++i) {
        REQUIRE(times[i] == request_ticks{0, finish[i]});
      }
    }
  }
}

TEST_CASE("closed loop: at depth 1 requests follow each other, each alone") {
  const random_case random = in_picoseconds(7);
  closed_loop<> loop{random.shape, random.times};
  std::vector<request_ticks> times(random.pages.size());
  loop.read(random.pages, {.depth = 1}, times);
  const std::int64_t alone = random.times.read_cycles_ps(1) + random.times.read_ps +
                             random.times.read_turnaround_ps + random.times.page_transfer_ps +
                             random.times.decode_ps;
  for (std::size_t r = 0; r < times.size(); ++r) {
    const auto n = static_cast<std::int64_t>(r);
    REQUIRE(times[r] == request_ticks{n * alone, (n + 1) * alone});
  }
  CHECK(loop.read({}, {.depth = 3}).makespan_ticks == 0);  // and the same loop again
}

TEST_CASE("closed loop: what cannot be asked for is refused, and nothing is written") {
  const random_case random = in_picoseconds(3);
  closed_loop<> loop{random.shape, random.times};
  std::vector<request_ticks> times(random.pages.size() + 1, {5, 7});
  CHECK_THROWS_WITH_AS(loop.read(random.pages, {.depth = 0}), doctest::Contains("got 0 and 1"),
                       bad_argument);
  CHECK_THROWS_WITH_AS(loop.read(random.pages, {.request_pages = 0}),
                       doctest::Contains("got 1 and 0"), bad_argument);
  CHECK_THROWS_WITH_AS(loop.read(random.pages, {.depth = 2}, times),
                       doctest::Contains("times must be empty or have one entry per request"),
                       bad_argument);
  std::vector<flash::location> pages = random.pages;
  pages.back().page = random.shape.pages;
  CHECK_THROWS_WITH_AS(
      loop.read(pages, {.depth = 2}, std::span(times).first(pages.size())),
      doctest::Contains(("page " + std::to_string(pages.size() - 1) + " (").c_str()), bad_argument);
  CHECK(times == std::vector<request_ticks>(times.size(), {5, 7}));
}

}  // namespace instinfer::test_closed_loop
