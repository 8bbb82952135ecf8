// The bounds of an attend by hand, and the name of what sets its pace.

#include <doctest/doctest.h>

#include <vector>

#include "instinfer/flash/attend/attend_timeline.hpp"
#include "instinfer/flash/bottleneck.hpp"

namespace instinfer::test_bottleneck {

namespace {

using flash::resource;

// 1000 ns in all.
flash::call_times call() {
  flash::call_times done;
  done.link_ns = 100;
  done.attention_ns = 900;
  return done;
}

// One channel, one die of one plane; pages of 4 KiB at 1 GB/s, tR 10 us. A command has the bus for
// 1 us.
flash::drive_spec one_die() {
  return {.geometry = {.blocks = 4, .pages = 8},
          .timing = {.read_ps = 10'000'000,
                     .program_ps = 1,
                     .erase_ps = 1,
                     .bus_bytes_per_s = 1'000'000'000,
                     .read_command_ps = 1'000'000,
                     .read_address_ps = 0,
                     .read_turnaround_ps = 0},
          .units = {.filter_bytes_per_s = 2'048'000'000,
                    .attention_kernels = 2,
                    .gemv_flops_per_s = 500'000'000,
                    .softmax_units = 1,
                    .softmax_flops_per_s = 250'000'000,
                    .top_k_elements_per_s = 1},
          .link_bytes_per_s = 1};
}

}  // namespace

TEST_CASE("bottleneck: one resource that works for 0.9 of the attend") {
  flash::call_times done = call();
  done.bounds[resource::gemv] = 900;
  done.bounds[resource::bus] = 899;
  done.units[flash::unit::flash] = 950;  // arrays and buses take turns, but GeMV hides it
  const flash::bottleneck found = flash::bottleneck_of(done);
  CHECK(found.name == "GeMV");
  CHECK(found.ns == 900);
  CHECK(found.share == doctest::Approx(0.9));
  done.bounds[resource::bus] = 901;
  CHECK(flash::bottleneck_of(done).name == "bus");
}

TEST_CASE("bottleneck: arrays and bus in turn, without the time of stalls") {
  flash::call_times done = call();
  done.bounds[resource::bus] = 600;
  done.bounds[resource::array] = 300;
  done.units[flash::unit::flash] = 950;
  done.stalled_ns = 50;
  CHECK(flash::bottleneck_of(done).name == "array+bus");
  CHECK(flash::bottleneck_of(done).ns == 900);
  done.stalled_ns = 400;  // 550: then the bus worked longer
  CHECK(flash::bottleneck_of(done).name == "bus");
  CHECK(flash::bottleneck_of(done).share == doctest::Approx(0.6));
  done.delay_ns = 700;
  CHECK(flash::bottleneck_of(done).name == "background writes");
}

TEST_CASE("bottleneck: phases in turn, each with its longest part") {
  flash::call_times done = call();
  done.bounds[resource::softmax] = 500;
  done.phases = {{.end = 550, .reading = 200, .softmax = 480},
                 {.begin = 500, .end = 900, .reading = 400, .softmax = 20}};
  flash::bottleneck found = flash::bottleneck_of(done);
  CHECK(found.name == "softmax, flash");
  CHECK(found.ns == 880);
  // Both phases have the same longest part: one name.
  done.phases[1].softmax = 410;
  CHECK(flash::bottleneck_of(done).name == "softmax");
  // Phases that overlap: the sum would exceed the attend.
  done.phases[1].softmax = 20;
  done.phases[0].softmax = 700;
  found = flash::bottleneck_of(done);
  CHECK(found.name == "softmax");
  CHECK(found.ns == 500);
}

// Eight pages. Each is a set of 100 scores and of 1000 elements, so 2000 FLOP.
TEST_CASE("bounds of an attend, by hand") {
  const flash::drive_spec drive = one_die();
  flash::attend_work work;
  std::vector<flash::location> pages;
  for (std::uint32_t i = 0; i < 8; ++i) {
    const bool is_v = i % 2 == 1;  // Logit and Attend share the GeMV units
    work.pages.push_back({.page = page_id{0}, .elements = 1000, .set = i});
    work.sets.push_back({.pages = 1,
                         .scores = is_v ? 0u : 100u,
                         .step = is_v ? flash::kernel_step::attend : flash::kernel_step::logit});
    pages.push_back({.page = static_cast<std::int32_t>(i)});
  }
  work.loads.push_back({.last_page = 8, .sets = 8});
  const auto bound_us = [](const flash::attend_times& times, resource r) {
    return times.ns(times.bound_ticks[static_cast<std::size_t>(r)]) * 1e-3;
  };
  flash::attend_timeline<> attends{drive, 1, 2};
  flash::attend_times times = attends.run(work, pages);
  CHECK(bound_us(times, resource::array) == doctest::Approx(8 * 10));
  CHECK(bound_us(times, resource::bus) == doctest::Approx(8 * (1 + 4.096)));
  CHECK(bound_us(times, resource::filter) == doctest::Approx(8 * 2));
  CHECK(bound_us(times, resource::gemv) == doctest::Approx(8 * 2));     // 2000 FLOP / 1 GFLOPS
  CHECK(bound_us(times, resource::softmax) == doctest::Approx(4 * 2));  // 500 FLOP / 0.25 GFLOPS
  CHECK(bound_us(times, resource::top_k) == 0);
  CHECK(bound_us(times, resource::dram) == 0);
  // The one die reads and sends in turn: 15.096 us a page.
  REQUIRE(times.phases.size() == 1);
  CHECK(times.ns(times.phases[0].reading) * 1e-3 == doctest::Approx(8 * 15.096));

  // A group of 20 heads: GeMV works 40 us a page and sets the pace. Attend has half of the pages,
  // so neither Logit nor Attend alone explains the time.
  flash::attend_timeline<> grouped{drive, 20, 2};
  times = grouped.run(work, pages);
  CHECK(bound_us(times, resource::gemv) == doctest::Approx(8 * 40));
  // The first page's way to GeMV comes before.
  CHECK(times.ns(times.makespan_ticks) * 1e-3 == doctest::Approx(15.096 + 2 + 8 * 40));
  CHECK(times.busy_ticks[static_cast<std::size_t>(flash::unit::attend)] * 2 ==
        times.bound_ticks[static_cast<std::size_t>(resource::gemv)]);
}

TEST_CASE("a phase of buffered pages alone has no time of flash") {
  flash::attend_work work;
  work.pages = {{.page = no_page, .elements = 1000, .set = 0},
                {.page = page_id{0}, .elements = 1000, .set = 1}};
  work.sets = {{.pages = 1}, {.pages = 1, .load = 1}};
  work.loads = {{.last_page = 1, .sets = 1},
                {.phase = 1, .first_page = 1, .last_page = 2, .sets = 1}};
  flash::drive_spec drive = one_die();
  drive.dram_bytes_per_s = 1'000'000'000;
  flash::attend_timeline<> attends{drive, 1, 2};
  const flash::attend_times times = attends.run(work, std::vector<flash::location>(2));
  REQUIRE(times.phases.size() == 2);
  CHECK(times.phases[0].pages == 0);
  CHECK(times.phases[0].flash == 0);
  CHECK(times.phases[0].reading == 0);
  CHECK(times.phases[1].pages == 1);
  CHECK(times.ns(times.phases[1].flash) * 1e-3 == doctest::Approx(15.096));
}

TEST_CASE("a call without work takes no time") {
  const flash::call_times none;
  CHECK(none.total_ns() == 0);
  CHECK(none.stalled_ns == 0);
  CHECK(none.delay_ns == 0);
}

TEST_CASE("without pages of flash, no channel stalls") {
  flash::attend_work work;
  work.pages = {{.page = no_page, .elements = 1000}};
  work.sets = {{.pages = 1}};
  work.loads = {{.last_page = 1, .sets = 1}};
  flash::drive_spec drive = one_die();
  drive.dram_bytes_per_s = 1'000'000'000;
  flash::attend_timeline<> attends{drive, 1, 2};
  const flash::attend_times times = attends.run(work, std::vector<flash::location>(1));
  CHECK(times.makespan_ticks > 0);
  CHECK(times.stalled_ticks == 0);
  CHECK(times.busy_ticks[static_cast<std::size_t>(flash::unit::flash)] == 0);
}

TEST_CASE("times of calls add up, and the background is that after the last") {
  flash::call_times one;
  one.phases.resize(2);
  one.link_ns = 1;
  one.attention_ns = 2;
  one.flash_write_ns = 3;
  one.moving_ns = 4;
  one.erase_ns = 5;
  one.units[flash::unit::top_k] = 6;
  one.bounds[resource::array] = 7;
  one.stalled_ns = 8;
  one.delay_ns = 9;
  one.background_ns = 10;
  one.backlog = 11;
  flash::call_times sum = one;
  sum += one;
  CHECK(sum.phases.size() == 4);
  CHECK(sum.link_ns == 2);
  CHECK(sum.attention_ns == 4);
  CHECK(sum.flash_write_ns == 6);
  CHECK(sum.moving_ns == 8);
  CHECK(sum.erase_ns == 10);
  CHECK(sum.units[flash::unit::top_k] == 12);
  CHECK(sum.bounds[resource::array] == 14);
  CHECK(sum.stalled_ns == 16);
  CHECK(sum.delay_ns == 18);
  CHECK(sum.background_ns == 10);
  CHECK(sum.backlog == 11);
  CHECK(sum.total_ns() == 2 + 4 + 6 + 8 + 10);
}

// The rows of the convoy: the same work takes about the sum of array and bus time with data first,
// and about the larger of them with commands first.
TEST_CASE("a convoy is the sum of array and bus where the larger would do") {
  flash::drive_spec drive{.geometry = {.chips = 4, .dies = 4, .blocks = 4, .pages = 64},
                          .timing = {.read_ps = 40'000'000,
                                     .program_ps = 1,
                                     .erase_ps = 1,
                                     .bus_bytes_per_s = 1'000'000'000},
                          .units = flash::accelerator_for(1'000'000'000'000),
                          .link_bytes_per_s = 1};
  drive.units.filter_bytes_per_s = 1'000'000'000'000;
  flash::attend_work work;
  std::vector<flash::location> pages;
  for (std::uint32_t i = 0; i < 64 * 16; ++i) {
    work.pages.push_back({.page = page_id{0}, .elements = 1, .set = 0});
    const auto die = static_cast<std::int32_t>(i % 16);
    pages.push_back({.chip = die % 4, .die = die / 4, .page = static_cast<std::int32_t>(i / 16)});
  }
  work.sets.push_back({.pages = 64 * 16});
  work.loads.push_back({.last_page = 64 * 16, .sets = 1});
  const double array_us = 64 * 40.02;
  const double bus_us = 1024 * (0.29 + 4.096);
  const auto run = [&](auto arbitration) {
    flash::attend_timeline<decltype(arbitration)> attends{drive, 1, 2};
    const flash::attend_times times = attends.run(work, pages);
    const auto us = [&](resource r) {
      return times.ns(times.bound_ticks[static_cast<std::size_t>(r)]) * 1e-3;
    };
    CHECK(us(resource::array) == doctest::Approx(array_us));
    CHECK(us(resource::bus) == doctest::Approx(bus_us));
    return times.ns(times.makespan_ticks) * 1e-3;
  };
  // In each round the last die's array overlaps the commands of no other die: 64 rounds of 40.02 us
  // and 16 transfers, with all commands but the first inside the array time.
  CHECK(run(flash::data_out_first{}) ==
        doctest::Approx(64 * (0.29 + 40.02 + 16 * 4.096)).epsilon(1e-3));
  CHECK(run(flash::command_first{}) == doctest::Approx(bus_us).epsilon(0.02));
}

}  // namespace instinfer::test_bottleneck
