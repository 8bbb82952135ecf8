// Command cycles, exact ticks, overflow.

#include <doctest/doctest.h>

#include <limits>
#include <string>

#include "instinfer/ssd/spec/suspension.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::test_timing {

using flash::geometry;
using flash::timing;

namespace {

constexpr timing v6{.read_ps = 45'000'000,
                    .program_ps = 450'000'000,
                    .erase_ps = 3'500'000'000,
                    .bus_bytes_per_s = 1'400'000'000};
constexpr geometry page_4k{};

template <timing T>
constexpr std::int64_t as_template_argument = T.read_ps;

static_assert(as_template_argument<v6> == 45'000'000);
static_assert(flash::valid(v6));
static_assert(!flash::valid(timing{}));

}  // namespace

TEST_CASE("timing: command cycles of 1 to 4 planes") {
  CHECK(v6.read_cycles_ps(1) == 290'000);
  CHECK(v6.read_cycles_ps(2) == 940'000);
  CHECK(v6.read_cycles_ps(3) == 1'590'000);
  CHECK(v6.read_cycles_ps(4) == 2'240'000);
  CHECK(v6.program_cycles_ps(1) == 361'000);
  CHECK(v6.program_cycles_ps(2) == 1'177'000);
  CHECK(v6.erase_cycles_ps(1) == 220'000);
  CHECK(v6.erase_cycles_ps(2) == 920'000);
}

TEST_CASE("ticks: a page at 1.4 GB/s is exact, not rounded") {
  const flash::tick_scale scale = flash::ticks_of(v6, page_4k);
  CHECK(scale.ticks_per_ps == 7);
  CHECK(scale.page_transfer_ticks == 4096 * 5000);
  // 4096 B / 1.4 GB/s = 20,480,000 / 7 ps: the identity holds in integers.
  CHECK(scale.page_transfer_ticks * 1'400'000'000 ==
        4096 * flash::ps_per_s / 1000 * scale.ticks_per_ps * 1000);
  CHECK(scale.from_ps(45'000'000) == 315'000'000);
}

TEST_CASE("ticks: spare bytes cross the bus too") {
  CHECK(flash::ticks_of(v6, geometry{.spare_bytes = 448}).page_transfer_ticks ==
        (4096 + 448) * 5000);
}

TEST_CASE("ticks: other rates") {
  timing t = v6;
  t.bus_bytes_per_s = 2'400'000'000;
  CHECK(flash::ticks_of(t, page_4k) == flash::tick_scale{3, 4096 * 1250});
  t.bus_bytes_per_s = 1'000'000'000;
  CHECK(flash::ticks_of(t, page_4k) == flash::tick_scale{1, 4'096'000});
  t.page_transfer_ps = 2'920'000;
  CHECK(flash::ticks_of(t, page_4k) == flash::tick_scale{1, 2'920'000});
}

TEST_CASE("ticks: a rate too odd for 63 bits is an error") {
  timing t = v6;
  t.bus_bytes_per_s = 1'333'333'331;  // shares no factor with 10^12
  const flash::tick_scale scale = flash::ticks_of(t, page_4k);
  CHECK(scale.ticks_per_ps == 1'333'333'331);
  CHECK(scale.from_ps(t.read_ps) == t.read_ps * t.bus_bytes_per_s);
  CHECK_THROWS_AS((void)scale.from_ps(std::int64_t{10} * flash::ps_per_s), instinfer::error);
  const geometry huge_page{.page_bytes = 1 << 30};
  CHECK_THROWS_AS((void)flash::ticks_of(t, huge_page), instinfer::error);
}

TEST_CASE("timing: a bad field is named") {
  const auto complaint = [](const timing& t) -> std::string {
    try {
      flash::validate(t);
    } catch (const instinfer::bad_argument& e) {
      return e.what();
    }
    return "";
  };
  CHECK(complaint(v6).empty());
  timing t = v6;
  t.read_ps = 0;
  CHECK(complaint(t).find("read_ps") != std::string::npos);
  t = v6;
  t.erase_ps = -4;
  CHECK(complaint(t).find("erase_ps") != std::string::npos);
  t = v6;
  t.bus_bytes_per_s = 0;
  CHECK(complaint(t).find("bus_bytes_per_s") != std::string::npos);
  t.page_transfer_ps = 1;
  CHECK(complaint(t).empty());
  t.program_next_plane_ps = std::numeric_limits<std::int64_t>::max();
  CHECK(complaint(t).find("program_next_plane_ps") != std::string::npos);
  // Array times are positive, the others may be zero; none is longer than 1,000 s.
  struct field {
    const char* name;
    std::int64_t timing::* value;
    std::int64_t least;
  };
  for (const field f : {field{"read_ps", &timing::read_ps, 1},
                        {"program_ps", &timing::program_ps, 1},
                        {"erase_ps", &timing::erase_ps, 1},
                        {"page_transfer_ps", &timing::page_transfer_ps, 0},
                        {"read_command_ps", &timing::read_command_ps, 0},
                        {"read_address_ps", &timing::read_address_ps, 0},
                        {"read_next_plane_ps", &timing::read_next_plane_ps, 0},
                        {"read_turnaround_ps", &timing::read_turnaround_ps, 0},
                        {"program_command_ps", &timing::program_command_ps, 0},
                        {"program_next_plane_ps", &timing::program_next_plane_ps, 0},
                        {"erase_command_ps", &timing::erase_command_ps, 0},
                        {"erase_next_plane_ps", &timing::erase_next_plane_ps, 0},
                        {"cache_move_ps", &timing::cache_move_ps, 0},
                        {"decode_ps", &timing::decode_ps, 0}}) {
    CAPTURE(f.name);
    for (const std::int64_t value :
         {f.least - 1, f.least, 1'000 * flash::ps_per_s, 1'000 * flash::ps_per_s + 1}) {
      CAPTURE(value);
      t = v6;
      t.*f.value = value;
      const bool in_range = value >= f.least && value <= 1'000 * flash::ps_per_s;
      CHECK(flash::valid(t) == in_range);
      CHECK((complaint(t).find(std::string(" ") + f.name + " must lie") == std::string::npos) ==
            in_range);
    }
  }
}

TEST_CASE("timing: page types have times of their own, or none") {
  timing t = v6;
  t.types = {.count = 2, .read_upper_ps = 1};
  CHECK(flash::valid(t));
  t.types.program_upper_ps = -1;
  CHECK(!flash::valid(t));
  t.types = {.count = 3, .read_middle_ps = 1, .read_upper_ps = 1};
  CHECK(flash::valid(t));
  t.types.read_middle_ps = 0;
  CHECK(!flash::valid(t));
  t.types = {.count = 1, .program_upper_ps = 1};
  CHECK(!flash::valid(t));
}

TEST_CASE("timing: command cycles are MQSim's unless told otherwise") {
  const timing t;
  CHECK(t.read_command_ps == 140'000);
  CHECK(t.read_address_ps == 150'000);
  CHECK(t.read_next_plane_ps == 500'000);
  CHECK(t.read_turnaround_ps == 20'000);
  CHECK(t.program_command_ps == 361'000);
  CHECK(t.program_next_plane_ps == 816'000);
  CHECK(t.erase_command_ps == 220'000);
  CHECK(t.erase_next_plane_ps == 700'000);
  CHECK(t.cache_move_ps == 3'000'000);
}

TEST_CASE("suspension: durations of 0 to 1,000 s, each by its name") {
  using flash::suspension;
  struct field {
    const char* name;
    std::int64_t suspension::* value;
  };
  for (const field f : {field{"program_ps", &suspension::program_ps},
                        {"erase_ps", &suspension::erase_ps},
                        {"command_ps", &suspension::command_ps},
                        {"resume_ps", &suspension::resume_ps},
                        {"least_run_ps", &suspension::least_run_ps}}) {
    suspension s;
    for (const std::int64_t value : {std::int64_t{0}, 1'000 * flash::ps_per_s}) {
      s.*f.value = value;
      CHECK_NOTHROW(flash::validate(s));
    }
    for (const std::int64_t value : {std::int64_t{-1}, 1'000 * flash::ps_per_s + 1}) {
      s.*f.value = value;
      CHECK_THROWS_WITH_AS(flash::validate(s), doctest::Contains(f.name), instinfer::bad_argument);
    }
  }
}

}  // namespace instinfer::test_timing
