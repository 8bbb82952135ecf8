// The paper's endurance arithmetic, energy by part and cost, each by hand.

#include <doctest/doctest.h>

#include <cmath>

#include "instinfer/ssd/report/cost.hpp"
#include "instinfer/ssd/report/endurance.hpp"
#include "instinfer/ssd/report/energy.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::test_endurance {

using namespace flash;

TEST_CASE("endurance: section VI-F to the last digit") {
  CHECK(std::llround(paper_endurance.lifetime_tokens() / 1000) == 32'263'877);
  endurance weeks = paper_endurance;
  weeks.retention_gain = 6.67;  // as printed
  CHECK(std::floor(weeks.users(128'000, 5) / 10) * 10 == 920);
  CHECK(std::floor(weeks.users(128'000, 3) / 10) * 10 == 1530);
  CHECK(std::floor(weeks.users(128'000, 1) / 100) * 100 == 4600);
  CHECK(three_weeks_retention_gain == doctest::Approx(6.67).epsilon(0.001));
}

TEST_CASE("endurance: where the paper's own numbers do not multiply out") {
  endurance decimal = paper_endurance;
  decimal.drive_bytes = 2e12;
  decimal.kv_bytes_per_token = 0.78e6;
  CHECK(std::llround(decimal.lifetime_tokens() / 1000) == 30'769'231);
  CHECK(decimal.lifetime_tokens() / paper_endurance.lifetime_tokens() ==
        doctest::Approx(1 - 0.046).epsilon(0.001));

  endurance exact = paper_endurance;
  exact.kv_bytes_per_token = 2.0 * 40 * 40 * 128 * 2;  // OPT-13B in fp16
  CHECK(exact.kv_bytes_per_token == 819'200);
  CHECK(exact.lifetime_tokens() / paper_endurance.lifetime_tokens() ==
        doctest::Approx(1 - 0.0016).epsilon(0.0001));

  endurance twice = paper_endurance;
  twice.footprint = 1.5;
  CHECK(twice.lifetime_tokens() * 1.5 == doctest::Approx(paper_endurance.lifetime_tokens()));

  endurance weeks = paper_endurance;
  weeks.retention_gain = 6.67;
  CHECK(std::lround(weeks.users(131'072, 5)) == 900);
  CHECK(std::lround(weeks.users(131'072, 3)) == 1499);
  CHECK(std::lround(weeks.users(131'072, 1)) == 4498);
}

TEST_CASE("endurance: wear and write amplification shorten a life; what cannot be is refused") {
  endurance e = paper_endurance;
  e.write_amplification = 2;
  e.wear_evenness = 0.5;
  CHECK(e.lifetime_tokens() * 4 == doctest::Approx(paper_endurance.lifetime_tokens()));
  e.write_amplification = 0.9;
  CHECK_THROWS_WITH_AS(e.lifetime_tokens(),
                       "endurance: write_amplification must be at least 1, got 0.900000",
                       bad_argument);
  CHECK_THROWS_WITH_AS(endurance{}.lifetime_tokens(),
                       "endurance: drive_bytes must be above 0, got 0.000000", bad_argument);
  e = paper_endurance;
  e.wear_evenness = 1.5;
  CHECK_THROWS_AS(e.lifetime_tokens(), bad_argument);
  CHECK_THROWS_AS(paper_endurance.users(std::nan(""), 1), bad_argument);
  CHECK_THROWS_AS(paper_endurance.users(1, 0), bad_argument);
}

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
  // 2048 tokens of context: 819,200 B each in 4 KiB pages, all read for one token; its own pages are 1.5 times its KV.
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

TEST_CASE("cost: of holding, wearing and computing, from stated prices") {
  // Round prices, for the arithmetic only.
  const memory_price drive{.usd = 200, .bytes = 2e12, .service_years = 5, .usd_per_kwh = 0.1};
  CHECK(drive.usd_per_byte_second() == doctest::Approx(100e-12 / (5 * 365 * 86'400.0)));
  CHECK(drive.usd_per_token_second(819'200) ==
        doctest::Approx(819'200 * drive.usd_per_byte_second()));
  CHECK(drive.usd_of_energy(3.6e6) == doctest::Approx(0.1));
  CHECK(usd_of_wear_per_token(drive, paper_endurance) ==
        doctest::Approx(800 / paper_endurance.lifetime_tokens()));
  const token_cost cost = cost_of_token(drive, paper_endurance, 60, 2);
  CHECK(cost.holding_usd ==
        doctest::Approx(60 * drive.usd_per_token_second(paper_endurance.kv_bytes_per_token)));
  CHECK(cost.total_usd() == doctest::Approx(cost.holding_usd + cost.wear_usd + cost.energy_usd));
  // DRAM at 3 USD/GB against flash at 0.1 USD/GB: 30 times the price of a token-second.
  const memory_price dram{.usd = 3, .bytes = 1e9, .service_years = 5, .usd_per_kwh = 0.1};
  CHECK(dram.usd_per_byte_second() == doctest::Approx(30 * drive.usd_per_byte_second()));
  CHECK_THROWS_WITH_AS((memory_price{.usd = 1, .bytes = 1}.usd_per_byte_second()),
                       "memory_price: service_years must be above 0, got 0.000000", bad_argument);
}

}  // namespace instinfer::test_endurance
