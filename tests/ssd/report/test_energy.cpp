// Energy by part, from the counts of each.

#include <doctest/doctest.h>

#include "instinfer/ssd/report/energy.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::test_energy {

using namespace flash;

TEST_CASE("energy: each part from its own count") {
  constexpr energy_rates rates{.array_w = 0.1,
                               .array_page_bytes = 4096,
                               .bus_j_per_byte = 1e-9,
                               .link_j_per_byte = 2e-9,
                               .dram_j_per_byte = 3e-9,
                               .accelerator_j_per_flop = 4e-9,
                               .controller_w = 2,
                               .channel_w = 0.5};
  constexpr timing t{.read_ps = 49'980'000,  // 50 us with the turnaround
                     .program_ps = 500 * ps_per_us,
                     .erase_ps = 4'000 * ps_per_us,
                     .bus_bytes_per_s = 1};
  constexpr energy e = energy_of({.pages_read = 1000,
                                  .pages_programmed = 100,
                                  .blocks_erased = 10,
                                  .bus_bytes = 5'000'000,
                                  .link_bytes = 1'000'000,
                                  .dram_bytes = 2'000'000,
                                  .accelerator_flops = 3e6,
                                  .seconds = 0.01},
                                 {.channels = 4}, t, rates);
  CHECK(e.array_read_j == doctest::Approx(1000 * 50e-6 * 0.1));
  CHECK(e.program_j == doctest::Approx(100 * 500e-6 * 0.1));
  CHECK(e.erase_j == doctest::Approx(10 * 4e-3 * 0.1));
  CHECK(e.bus_j == doctest::Approx(5e-3));
  CHECK(e.link_j == doctest::Approx(2e-3));
  CHECK(e.dram_j == doctest::Approx(6e-3));
  CHECK(e.accelerator_j == doctest::Approx(12e-3));
  CHECK(e.static_j == doctest::Approx(0.01 * (2 + 4 * 0.5)));
  CHECK(e.total_j() == doctest::Approx(0.005 + 0.005 + 0.004 + 0.025 + 0.04));
  energy sum = e;
  sum += e;
  CHECK(sum.total_j() == doctest::Approx(2 * e.total_j()));
  CHECK(energy_of({}, {}, t).total_j() == 0);
  // 5 pJ a bit of the link, 3.69 of the bus, 1.3 nJ for 8 bytes of DRAM.
  CHECK(energy_rates{}.link_j_per_byte == doctest::Approx(40e-12));
  CHECK(energy_rates{}.bus_j_per_byte == doctest::Approx(29.52e-12));
  CHECK(energy_rates{}.dram_j_per_byte == doctest::Approx(162.5e-12));
}

TEST_CASE("energy: the same bytes take the same array energy, whatever the page size") {
  const auto array_j = [](std::int32_t page_bytes) {
    geometry g = instcsd.geometry;
    g.page_bytes = page_bytes;
    const auto pages = static_cast<std::uint64_t>((1 << 30) / page_bytes);
    return energy_of({.pages_read = pages}, g, instcsd.timing).array_read_j;
  };
  // 131,072 pages of 8 KiB, the size of the part that array_w comes from.
  CHECK(array_j(8192) == doctest::Approx(131'072 * 0.0825 * 45.02e-6));
  CHECK(array_j(4096) == doctest::Approx(array_j(8192)));
  CHECK(array_j(16'384) == doctest::Approx(array_j(8192)));
}

TEST_CASE("energy: a plain drive that reads at its link's rate takes the measured 6.2 W") {
  constexpr std::uint64_t bytes = 7'000'000'000;
  const energy second =
      energy_of({.pages_read = bytes / 4096, .bus_bytes = bytes, .link_bytes = bytes, .seconds = 1},
                pcie4_ssd.geometry, pcie4_ssd.timing);
  CHECK(second.total_j() == doctest::Approx(6.2).epsilon(0.01));
  // Twice the channels: 8 x 0.15 W more, for the same work.
  geometry wide = pcie4_ssd.geometry;
  wide.channels = 16;
  CHECK(energy_of({.seconds = 1}, wide, pcie4_ssd.timing).static_j ==
        doctest::Approx(second.static_j + 8 * 0.15));
}

TEST_CASE("energy: an append and a dense attend of OPT-13B, by part") {
  // 2048 tokens of context: 819,200 B each in 4 KiB pages, all read for one token; its own pages
  // are 1.5 times its KV.
  constexpr traffic read{.pages_read = 409'600, .channel_bytes = 409'600ull * 4096};
  constexpr traffic written{.pages_written = 300, .written_bytes = 300 * 4096};
  energy e = energy_of(work_of(read, 2048.0 * 819'200, 0), instcsd.geometry, instcsd.timing);
  e += energy_of(work_of(written, 0, 0), instcsd.geometry, instcsd.timing);
  // 409,600 reads x 1.86 uJ: without constant power the array takes most of it, which is what
  // sparse attention saves.
  CHECK(e.array_read_j == doctest::Approx(409'600 * 0.0825 / 2 * 45.02e-6));
  CHECK(e.array_read_j > 0.85 * e.total_j());
  CHECK(e.bus_j == doctest::Approx((409'600.0 + 300) * 4096 * 8 * 3.69e-12));
  CHECK(e.program_j == doctest::Approx(300 * 0.0825 / 2 * 450e-6));
  CHECK(e.dram_j == doctest::Approx(2 * 300 * 4096 * 1.3e-9 / 8));
}

}  // namespace instinfer::test_energy
