// Presets are valid, structural, and reach the rates their comments state; the accelerator
// reproduce Table I.

#include <doctest/doctest.h>

#include <limits>
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

TEST_CASE("presets: bad links and memories are refused") {
  drive_spec drive = flash::instcsd;
  drive.link_bytes_per_s = 0;
  CHECK_THROWS_AS(flash::validate(drive), instinfer::bad_argument);
  drive = flash::instcsd;
  drive.dram_bytes = -1;
  CHECK_THROWS_AS(flash::validate(drive), instinfer::bad_argument);
}

TEST_CASE("accelerator: Table I, one head and 16 tokens") {
  const flash::accelerator_spec& units = flash::instcsd.units;
  flash::accelerator_spec one_kernel = units;
  one_kernel.attention_kernels = 1;
  CHECK(one_kernel.gemv_ps(16 * 128 * 2) == 322'520);  // 4096 FLOP; the paper prints 0.32 us
  CHECK(units.gemv_ps(16 * 128 * 2) == 161'260);
  CHECK(units.filter_ps(4096) == 2'214'055);
  CHECK(units.top_k_ps(285) == 1'000'000);
  CHECK(units.attention_kernels == 2);
  CHECK(units.softmax_units == 22);
}

TEST_CASE("accelerator: keep up with the measured 7.66 GB/s, and one softmax unit fewer does not") {
  flash::accelerator_spec units = flash::instcsd.units;
  const std::int64_t tokens = 7'660'000'000 / 512;  // of one second
  const std::int64_t scores = 7'660'000'000 / 128;  // of the first pass of SparF
  CHECK(units.softmax_ps(scores) <= flash::ps_per_s);
  CHECK(units.gemv_ps(tokens * 512) <= flash::ps_per_s);
  --units.softmax_units;
  CHECK(units.softmax_ps(scores) > flash::ps_per_s);
}

TEST_CASE("work_ps: exact, rounded up, checked") {
  CHECK(flash::work_ps(0, 0) == 0);
  CHECK(flash::work_ps(1, 3) == 333'333'333'334);
  CHECK(flash::work_ps(7, 7) == flash::ps_per_s);
  CHECK(flash::work_ps(1, 9'000'000'000'000'000) == 1);
  CHECK(flash::work_ps(8'999'999'999'999'999, 9'000'000'000'000'000) == flash::ps_per_s);
  CHECK_THROWS_AS((void)flash::work_ps(1, 0), instinfer::bad_argument);
  CHECK_THROWS_AS((void)flash::work_ps(-1, 1), instinfer::bad_argument);
  CHECK_THROWS_AS((void)flash::work_ps(std::numeric_limits<std::int64_t>::max(), 1),
                  instinfer::bad_argument);
  CHECK_THROWS_AS((void)flash::accelerator_spec{}.gemv_ps(1), instinfer::bad_argument);
}

}  // namespace instinfer::test_presets
