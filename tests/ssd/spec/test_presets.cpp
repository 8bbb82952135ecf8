// Presets are valid, structural, and reach the rates that their comments state.

#include <doctest/doctest.h>

#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/spec/placement.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::test_presets {

using flash::drive_spec;

namespace {

template <drive_spec D>
constexpr std::int32_t as_template_argument = D.geometry.channels;

static_assert(as_template_argument<flash::instcsd> == 8);
static_assert(flash::instcsd.bus_bytes_per_s() == 11'200'000'000);
static_assert(flash::instcsd.geometry.page_bytes == 4096);
static_assert(as_template_argument<flash::tlc_ssd> == 8);
static_assert(flash::tlc_ssd.timing.types.count == 3);
static_assert(flash::instcsd.units.present() && !flash::pcie4_ssd.units.present());

// Of a read that is long against its first and last round.
double replayed_read_bytes_per_s(const drive_spec& drive) {
  const flash::placement place{drive.geometry};
  const std::int64_t rounds = 24;  // whole turns of one, two or three page types
  std::vector<flash::location> pages;
  for (std::int64_t n = 0; n < rounds * drive.geometry.dies_total() * drive.geometry.planes; ++n) {
    pages.push_back(place.striped(n));
  }
  flash::timeline<> drive_time{drive.geometry, drive.timing};
  const double bytes = static_cast<double>(pages.size()) * drive.geometry.page_bytes;
  return bytes / static_cast<double>(drive_time.read(pages).makespan_ps()) * 1e12;
}

}  // namespace

TEST_CASE("presets: the round formula is the replayed rate") {
  for (const drive_spec& drive : {flash::instcsd, flash::pcie4_ssd, flash::tlc_ssd,
                                  flash::daisyplus, flash::pcie5_16ch, flash::slc_low_latency}) {
    CHECK_NOTHROW(flash::validate(drive));
    const double formula = flash::sequential_read_bytes_per_s(drive);
    INFO("formula " << formula);
    CHECK(replayed_read_bytes_per_s(drive) == doctest::Approx(formula).epsilon(1e-3));
  }
}

TEST_CASE("presets: rates named in the comments") {
  CHECK(flash::sequential_read_bytes_per_s(flash::instcsd) ==
        doctest::Approx(7.51e9).epsilon(1e-3));
  CHECK(flash::sequential_read_bytes_per_s(flash::pcie5_16ch) ==
        doctest::Approx(20.6e9).epsilon(1e-3));
  CHECK(flash::sequential_read_bytes_per_s(flash::slc_low_latency) ==
        doctest::Approx(9.65e9).epsilon(1e-3));
  CHECK(flash::sequential_read_bytes_per_s(flash::tlc_ssd) ==
        doctest::Approx(6.01e9).epsilon(1e-3));
  // The dies per channel of instcsd are the power of two nearest to the 7.66 GB/s of InstInfer
  // Table III.
  drive_spec other = flash::instcsd;
  other.geometry.dies = 2;
  CHECK(flash::sequential_read_bytes_per_s(other) == doctest::Approx(5.65e9).epsilon(1e-3));
  other.geometry.dies = 8;
  CHECK(flash::sequential_read_bytes_per_s(other) == doctest::Approx(8.99e9).epsilon(1e-3));
}

TEST_CASE("presets: an accelerator for a drive is never the reason that its flash waits") {
  // instcsd, a page of a channel: 16 dies of 2 planes read 32 in 45.02 us, so the bus is the limit
  // with 290 ns of cycles (two planes: 470 ns a page) and 4096 B at 1.4 GB/s, 2925.7 ns.
  CHECK(flash::most_read_bytes_per_s(flash::instcsd) ==
        doctest::Approx(8 * 4096 / (290e-9 + 4096 / 1.4e9)));
  drive_spec slow = flash::instcsd;
  slow.timing.read_ps *= 4;  // 180.02 us for 32 pages: longer than the bus takes for them
  CHECK(flash::most_read_bytes_per_s(slow) == doctest::Approx(8 * 32 * 4096 / 180.02e-6));
  for (const std::int32_t group : {1, 4}) {
    const flash::accelerator_spec units = flash::accelerator_for(flash::pcie5_16ch, group);
    const double bytes_per_s = flash::most_read_bytes_per_s(flash::pcie5_16ch);
    // K and V of a token are 512 B: 512 FLOP and half a score a byte, for each head of the group.
    CHECK(static_cast<double>(units.gemv_flops_per_s) * units.attention_kernels >=
          group * bytes_per_s);
    CHECK(static_cast<double>(units.softmax_flops_per_s) * units.softmax_units / 5 >=
          group * bytes_per_s / 512);
    CHECK(units.filter_bytes_per_s == 2'400'000'000);  // the bus
  }
}

TEST_CASE("presets: what data sheets give") {
  const flash::timing& v6 = flash::vnand_v6_timing;
  CHECK(v6.read_ps == 45 * flash::ps_per_us);
  CHECK(v6.program_ps == 450 * flash::ps_per_us);
  CHECK(v6.erase_ps == 3'500 * flash::ps_per_us);
  CHECK(v6.bus_bytes_per_s == 1'400'000'000);
  constexpr std::int64_t tib = std::int64_t{1} << 40;
  CHECK(flash::slc_low_latency.geometry.bytes() == tib);
  for (const drive_spec* drive : {&flash::instcsd, &flash::pcie4_ssd, &flash::pcie5_16ch}) {
    CHECK(drive->geometry.bytes() == 2 * tib);
  }
  // Whole word lines of three pages, and less than a block of each plane over 2 TiB.
  const flash::geometry& tlc = flash::tlc_ssd.geometry;
  CHECK(tlc.pages % 3 == 0);
  CHECK(tlc.bytes() >= 2 * tib);
  CHECK(tlc.bytes() / tlc.blocks * (tlc.blocks - 1) < 2 * tib);
  CHECK(flash::slc_low_latency.timing.read_ps == 3 * flash::ps_per_us);
}

TEST_CASE("presets: bad links and memories are refused") {
  drive_spec drive = flash::instcsd;
  drive.link_bytes_per_s = 0;
  CHECK_THROWS_AS(flash::validate(drive), instinfer::bad_argument);
  drive = flash::instcsd;
  drive.dram_bytes = -1;
  CHECK_THROWS_AS(flash::validate(drive), instinfer::bad_argument);
}

}  // namespace instinfer::test_presets
