// Command cycles, exact ticks, overflow.

#include <doctest/doctest.h>

#include <limits>
#include <string>

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
}

}  // namespace instinfer::test_timing
