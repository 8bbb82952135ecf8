// Energy by part, from the counts of each.

#include <doctest/doctest.h>

#include "instinfer/ssd/report/energy.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::test_energy {

using namespace flash;

TEST_CASE("energy: each part from its own count") {
  constexpr energy_rates rates{.array_w = 0.1,
                               .bus_j_per_byte = 1e-9,
                               .link_j_per_byte = 2e-9,
                               .dram_j_per_byte = 3e-9,
                               .accelerator_j_per_flop = 4e-9};
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
                                  .accelerator_flops = 3e6},
                                 t, rates);
  CHECK(e.array_read_j == doctest::Approx(1000 * 50e-6 * 0.1));
  CHECK(e.program_j == doctest::Approx(100 * 500e-6 * 0.1));
  CHECK(e.erase_j == doctest::Approx(10 * 4e-3 * 0.1));
  CHECK(e.bus_j == doctest::Approx(5e-3));
  CHECK(e.link_j == doctest::Approx(2e-3));
  CHECK(e.dram_j == doctest::Approx(6e-3));
  CHECK(e.accelerator_j == doctest::Approx(12e-3));
  CHECK(e.total_j() == doctest::Approx(0.005 + 0.005 + 0.004 + 0.025));
  energy sum = e;
  sum += e;
  CHECK(sum.total_j() == doctest::Approx(2 * e.total_j()));
  CHECK(energy_of({}, t).total_j() == 0);
}

TEST_CASE("energy: an append and a dense attend of OPT-13B, by part") {
  // 2048 tokens of context: 819,200 B each in 4 KiB pages, all read for one token; its own pages
  // are 1.5 times its KV.
  constexpr traffic read{.pages_read = 409'600, .channel_bytes = 409'600ull * 4096};
  constexpr traffic written{.pages_written = 300, .written_bytes = 300 * 4096};
  energy e = energy_of(work_of(read, 2048.0 * 819'200), instcsd.timing);
  e += energy_of(work_of(written, 0), instcsd.timing);
  // 409,600 reads x 3.7 uJ: the array takes most of it, which is what sparse attention saves.
  CHECK(e.array_read_j == doctest::Approx(409'600 * 0.0825 * 45.02e-6));
  CHECK(e.array_read_j > 0.9 * e.total_j());
  CHECK(e.bus_j == doctest::Approx((409'600.0 + 300) * 4096 * 8 * 3.69e-12));
  CHECK(e.program_j == doctest::Approx(300 * 0.0825 * 450e-6));
  CHECK(e.dram_j == doctest::Approx(2 * 300 * 4096 * 1.3e-9 / 8));
}

}  // namespace instinfer::test_energy
