// The replay of an attend against the event-driven oracle: every page, load and unit, to the tick,
// and what must hold of any such pipeline.

#include <doctest/doctest.h>

#include <array>
#include <random>
#include <vector>

#include "instinfer/flash/attend/attend_timeline.hpp"
#include "tests/support/event_driven_attend.hpp"
#include "tests/support/random_batches.hpp"

namespace instinfer::test_attend_timeline {

namespace {

using oracle::pick;

struct attend_case {
  flash::drive_spec drive;
  flash::drive_rules rules;
  flash::attend_work work;
  std::vector<flash::location> pages;
  std::uint32_t group = 1;
  bool parts = false;  // of pages cross the buses

  explicit attend_case(unsigned seed, bool options) {
    const oracle::random_case base{seed};
    std::mt19937 random{seed ^ 0x5EEDu};
    drive = {.geometry = base.shape, .timing = base.times, .units = {}, .link_bytes_per_s = 1};
    if (drive.geometry.chips > 8) {
      drive.geometry.chips = 9;
    }
    // Each unit may be far too slow, about right, or never the limit.
    const auto rate = [&](double about) {
      const std::array<double, 4> factors{0.05, 0.8, 1.2, 30};
      return static_cast<std::int64_t>(about *
                                       factors[static_cast<std::size_t>(pick(random, 0, 3))]) +
             7;
    };
    group = static_cast<std::uint32_t>(pick(random, 1, 3));
    drive.units = {
        .filter_bytes_per_s = rate(2e9),
        .attention_kernels = pick(random, 1, 3),
        .gemv_flops_per_s = rate(2e9),
        .softmax_units = pick(random, 1, 20),
        .softmax_flops_per_s = rate(5e7),
        .top_k_elements_per_s = rate(3e8),
        .filter_buffer_pages = pick(random, 1, 3),
        .kernel_buffer_pages = pick(random, 0, 2) == 0 ? pick(random, 1, 3) : pick(random, 4, 60)};
    drive.units.heads_at_once = pick(random, 0, 1) == 0 ? 0 : pick(random, 1, 13);
    drive.dram_bytes_per_s = rate(2e9);
    parts = options && seed % 3 == 1;
    if (options) {
      rules.cache_read = pick(random, 0, 1) != 0;
      rules.pair = static_cast<flash::pairing>(pick(random, 0, 3));
      if (pick(random, 0, 1) != 0) {
        rules.retry = flash::independent_failures(300'000'000, 5, seed);
      }
      if (pick(random, 0, 1) != 0) {
        drive.timing.decode_ps = pick(random, 1, 9) * flash::ps_per_us;
      }
      if (pick(random, 0, 1) != 0) {
        drive.timing.types = {.count = 3,
                              .read_middle_ps = pick(random, 1, 90) * flash::ps_per_us,
                              .read_upper_ps = pick(random, 1, 120) * flash::ps_per_us};
      }
      drive.timing.cache_move_ps = pick(random, 0, 1) * 3 * flash::ps_per_us;
    }
    const int heads = pick(random, 1, 12);
    const int phases = pick(random, 1, 3);
    for (int h = 0; h < heads; ++h) {
      for (int p = 0; p < phases; ++p) {
        add_load(random, static_cast<std::uint32_t>(p), base);
      }
    }
  }

  void add_load(std::mt19937& random, std::uint32_t phase, const oracle::random_case& base) {
    flash::head_load load{
        .op = phase == 0 ? attention::operation::score_dims : attention::operation::fold,
        .phase = phase,
        .first_page = static_cast<std::uint32_t>(work.pages.size()),
        .ranked_elements =
            static_cast<std::uint64_t>(pick(random, 0, 2) == 0 ? 0 : pick(random, 1, 3000))};
    const int sets = pick(random, 0, 9) == 0 ? 0 : pick(random, 1, 12);
    for (int s = 0; s < sets; ++s) {
      const bool is_v = pick(random, 0, 2) == 0;
      const int pages_of_set = pick(random, 1, 3);
      for (int i = 0; i < pages_of_set; ++i) {
        const bool buffered = pick(random, 0, 7) == 0;
        work.pages.push_back({.page = buffered ? no_page : page_id{0},
                              .elements = static_cast<std::uint32_t>(pick(random, 1, 2048)),
                              .set = static_cast<std::uint32_t>(work.sets.size())});
        if (parts && !buffered) {
          work.pages.back().codewords = pick(random, 0, drive.geometry.codewords_per_page());
        }
        const auto& from = base.pages[random() % base.pages.size()];
        pages.push_back(from);
        pages.back().chip %= drive.geometry.chips;
      }
      work.sets.push_back({.pages = static_cast<std::uint32_t>(pages_of_set),
                           .scores = is_v ? 0 : static_cast<std::uint32_t>(pick(random, 1, 64)),
                           .load = static_cast<std::uint32_t>(work.loads.size()),
                           .step = phase == 0 ? flash::kernel_step::logit_0
                                   : is_v     ? flash::kernel_step::attend
                                              : flash::kernel_step::logit});
    }
    load.sets = static_cast<std::uint32_t>(sets);
    load.last_page = static_cast<std::uint32_t>(work.pages.size());
    work.loads.push_back(load);
  }
};

// What the replay tells, in the oracle's terms.
struct watcher {
  struct flash_watch {
    watcher* all;
    void operator()(const flash::event& e) const {
      if (e.kind == flash::event_kind::data_out) {
        all->decoded[e.index] = e.end_ticks + all->decode;
      }
    }
  };
  flash_watch flash{this};
  std::int64_t decode = 0;
  std::vector<std::int64_t> decoded, filtered, through;

  watcher(std::size_t pages, std::int64_t decode_ticks)
      : decode{decode_ticks}, decoded(pages, -1), filtered(pages, -1), through(pages, -1) {}
  void filter(std::size_t, std::size_t page, std::int64_t, std::int64_t end) {
    filtered[page] = end;
  }
  void dram(std::size_t page, std::int64_t, std::int64_t end) { filtered[page] = end; }
  void gemv(flash::kernel_step, std::size_t page, std::int64_t, std::int64_t end) {
    through[page] = end;
  }
  void softmax(const flash::score_set&, std::int64_t, std::int64_t) {}
  void top_k(std::uint32_t, std::int64_t, std::int64_t) {}
};

template <class Arbitration>
std::int64_t check(const attend_case& c) {
  flash::attend_timeline<Arbitration> fast{c.drive, c.group, 2, c.rules};
  watcher seen{c.pages.size(), c.drive.timing.decode_ps * fast.scale().ticks_per_ps};
  const flash::attend_times times = fast.run(c.work, c.pages, seen);
  oracle::event_driven_attend slow{c.drive, c.group, 2, c.rules,
                                   std::is_same_v<Arbitration, flash::data_out_first>};
  const oracle::attend_outcome expected = slow.run(c.work, c.pages);
  REQUIRE(seen.decoded == expected.decoded);
  REQUIRE(seen.filtered == expected.filtered);
  REQUIRE(seen.through == expected.through);
  REQUIRE(times.makespan_ticks == expected.makespan);
  REQUIRE(fast.releases().size() == expected.released.size());
  for (const flash::load_release& r : fast.releases()) {
    REQUIRE(r.at == expected.released[r.load]);
  }
  std::vector<std::int64_t> begin(times.phases.size(), flash::never_ticks),
      end(times.phases.size(), 0);
  for (std::size_t i = 0; i < c.work.loads.size(); ++i) {
    const std::uint32_t p = c.work.loads[i].phase;
    begin[p] = std::min(begin[p], expected.released[i]);
    end[p] = std::max(end[p], expected.finished[i]);
  }
  for (std::size_t p = 0; p < times.phases.size(); ++p) {
    REQUIRE(times.phases[p].begin == begin[p]);
    REQUIRE(times.phases[p].end == end[p]);
  }
  // The channel that was busy longest; where several were, any of them.
  const bool a_channels = std::ranges::count(expected.stalled, times.stalled_ticks) > 0;
  REQUIRE((a_channels || times.busy_ticks[static_cast<std::size_t>(flash::unit::flash)] == 0));
  for (const std::int64_t bound : times.bound_ticks) {
    REQUIRE(bound <= times.makespan_ticks);
  }
  std::int64_t reading = 0;  // of the phases together, the busiest channel of each
  for (const flash::phase_ticks& phase : times.phases) {
    REQUIRE(phase.reading <= expected.makespan);
    reading += phase.reading;
  }
  REQUIRE(reading >=
          times.busy_ticks[static_cast<std::size_t>(flash::unit::flash)] - times.stalled_ticks);
  const auto dies = static_cast<std::size_t>(c.drive.geometry.dies_per_channel());
  for (std::size_t d = 0; d < times.dies.size(); ++d) {
    REQUIRE(times.dies[d].held_ticks <= times.channels[d / dies].end_ticks);
  }
  REQUIRE(fast.run(c.work, c.pages).makespan_ticks == expected.makespan);  // again, unwatched
  return expected.stalls;
}

}  // namespace

TEST_CASE_TEMPLATE("attend timeline: 0 ticks off the event-driven drive", A, flash::data_out_first,
                   flash::command_first) {
  std::int64_t stalls = 0;
  for (unsigned seed = 1; seed <= 400; ++seed) {
    CAPTURE(seed);
    stalls += check<A>(attend_case{seed, seed % 2 == 0});
  }
  CHECK(stalls > 1000);  // buffers were full, often
}

// Units that are never the limit, with room for all pages.
flash::drive_spec unlimited(flash::drive_spec drive) {
  drive.units = {.filter_bytes_per_s = 1'000'000'000'000'000,
                 .attention_kernels = 1,
                 .gemv_flops_per_s = 1'000'000'000'000'000,
                 .softmax_units = 1,
                 .softmax_flops_per_s = 1'000'000'000'000'000,
                 .top_k_elements_per_s = 1'000'000'000'000'000,
                 .filter_buffer_pages = 1 << 12,
                 .kernel_buffer_pages = 1 << 12};
  return drive;
}

TEST_CASE("attend timeline: with room and fast units, the channels are those of a batch") {
  for (unsigned seed = 1; seed <= 100; ++seed) {
    CAPTURE(seed);
    const oracle::random_case random{seed};
    const flash::drive_spec drive = unlimited(
        {.geometry = random.shape, .timing = random.times, .units = {}, .link_bytes_per_s = 1});
    flash::attend_work work;
    work.loads.push_back({.last_page = static_cast<std::uint32_t>(random.pages.size()), .sets = 1});
    work.sets.push_back({.pages = static_cast<std::uint32_t>(random.pages.size())});
    work.pages.assign(random.pages.size(), {.page = page_id{0}, .elements = 1, .set = 0});
    flash::attend_timeline<> attends{drive, 1, 2};
    watcher seen{random.pages.size(), 0};
    const flash::attend_times times = attends.run(work, random.pages, seen);
    flash::timeline<> batches{random.shape, random.times};
    std::vector<std::int64_t> finish(random.pages.size());
    const flash::batch_times batch = batches.read(random.pages, finish);
    REQUIRE(seen.decoded == finish);
    REQUIRE(times.phases[0].begin + times.phases[0].flash == batch.makespan_ticks);
    for (std::size_t c = 0; c < times.channels.size(); ++c) {
      REQUIRE(times.channels[c].commands == batch.channels[c].commands);
      REQUIRE(times.channels[c].command_ticks == batch.channels[c].command_ticks);
      REQUIRE(times.channels[c].data_ticks == batch.channels[c].data_ticks);
    }
    REQUIRE(times.dies.size() == batch.dies.size());
    for (std::size_t d = 0; d < times.dies.size(); ++d) {
      REQUIRE(times.dies[d].array_ticks == batch.dies[d].array_ticks);
      REQUIRE(times.dies[d].held_ticks == batch.dies[d].held_ticks);
    }
    REQUIRE(times.stalled_ticks == 0);
  }
}

// One channel, one die: four pages of 4 KiB at 1 GB/s, 10 us tR, each a set of its own.
TEST_CASE("attend timeline: a full buffer stalls the bus, by hand") {
  flash::drive_spec drive{.geometry = {.blocks = 4, .pages = 4},
                          .timing = {.read_ps = 10'000'000,
                                     .program_ps = 1,
                                     .erase_ps = 1,
                                     .bus_bytes_per_s = 1'000'000'000,
                                     .read_command_ps = 0,
                                     .read_address_ps = 0,
                                     .read_turnaround_ps = 0},
                          .units = {},
                          .link_bytes_per_s = 1};
  flash::attend_work work;
  std::vector<flash::location> pages;
  for (std::uint32_t i = 0; i < 4; ++i) {
    work.pages.push_back({.page = page_id{0}, .elements = 500, .set = i});  // 1000 FLOP
    work.sets.push_back({.pages = 1});
    pages.push_back({.page = static_cast<std::int32_t>(i)});
  }
  work.loads.push_back({.last_page = 4, .sets = 4});
  double stalled_us = 0;
  const auto us = [&](std::int64_t filter_bytes_per_s, std::int64_t gemv_flops_per_s,
                      int filter_room, int kernel_room) {
    drive.units = {.filter_bytes_per_s = filter_bytes_per_s,
                   .attention_kernels = 1,
                   .gemv_flops_per_s = gemv_flops_per_s,
                   .softmax_units = 1,
                   .softmax_flops_per_s = 1,
                   .top_k_elements_per_s = 1,
                   .filter_buffer_pages = filter_room,
                   .kernel_buffer_pages = kernel_room};
    flash::attend_timeline<> attends{drive, 1, 2};
    const flash::attend_times times = attends.run(work, pages);
    stalled_us = times.ns(times.stalled_ticks) * 1e-3;
    CHECK(times.ns(times.dies[0].array_ticks) == doctest::Approx(4 * 10e3));
    return static_cast<double>(times.makespan_ps()) * 1e-6;
  };
  constexpr std::int64_t fast = 4'096'000'000'000'000;  // 1 ps a page
  // Reads follow each other, 14.096 us each; then 1 ps in the filter and 1 in the kernels.
  CHECK(us(fast, fast, 1, 1) == doctest::Approx(4 * 14.096).epsilon(1e-6));
  CHECK(stalled_us == 0);
  // A filter of 20 us a page, and one page of room: it holds up the bus until it is done, and the
  // die with it. From the second page on, a page takes 4.096 us of bus and 20 of filter, since the
  // array's 10 us are done by then.
  CHECK(us(204'800'000, fast, 1, 1) == doctest::Approx(14.096 + 20 + 3 * 24.096).epsilon(1e-6));
  CHECK(stalled_us == doctest::Approx(3 * (20 - 10)).epsilon(1e-6));
  // With two, the next page comes in meanwhile.
  CHECK(us(204'800'000, fast, 2, 1) == doctest::Approx(14.096 + 4 * 20).epsilon(1e-6));
  // Kernels of 50 us a page with one place: the filter waits for it, then takes 1 ps.
  CHECK(us(fast, 20'000'000, 1, 1) == doctest::Approx(14.096 + 4 * 50).epsilon(1e-6));
}

TEST_CASE("attend timeline: bad input is refused") {
  const flash::drive_spec drive = flash::instcsd;
  flash::attend_timeline<> attends{drive, 1, 2};
  flash::attend_work work;
  work.pages.push_back({.page = page_id{0}, .elements = 1, .set = 0});
  work.sets.push_back({.pages = 1});
  work.loads.push_back({.last_page = 1, .sets = 1});
  CHECK_THROWS_WITH_AS(attends.run(work, {}),
                       "attend timeline: 1 pages of work, but locations of 0", bad_argument);
  const flash::location outside{.channel = 8};
  CHECK_THROWS_AS(attends.run(work, {&outside, 1}), bad_argument);
  const flash::location inside{};
  CHECK(attends.run(work, {&inside, 1}).makespan_ticks > 0);
  CHECK(attends.run({}, {}).makespan_ticks == 0);
  CHECK_THROWS_AS((flash::attend_timeline<>{flash::pcie4_ssd, 1, 2}), bad_argument);
  flash::drive_spec slow = drive;  // 2^20 FLOP, one after the other, of 10^6 s each
  slow.units.attention_kernels = 1;
  slow.units.gemv_flops_per_s = 1;
  work.pages.assign(1024, {.page = page_id{0}, .elements = 1u << 19, .set = 0});
  work.sets[0].pages = 1024;
  work.loads[0].last_page = 1024;
  const std::vector<flash::location> where(1024);
  CHECK_THROWS_AS((flash::attend_timeline<>{slow, 1, 2}.run(work, where)), bad_argument);
}

}  // namespace instinfer::test_attend_timeline
