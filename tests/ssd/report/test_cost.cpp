// The cost of holding, wearing and computing.

#include <doctest/doctest.h>

#include "instinfer/ssd/report/cost.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::test_cost {

using namespace flash;

TEST_CASE("cost: of holding, wearing and computing, from stated prices") {
  // Round prices, for the arithmetic only.
  const memory_price drive{.usd = 200, .bytes = 2e12, .service_years = 5, .usd_per_kwh = 0.1};
  CHECK(drive.usd_per_byte_second() == doctest::Approx(100e-12 / (5 * 365 * 86'400.0)));
  CHECK(drive.usd_per_token_second(819'200) ==
        doctest::Approx(819'200 * drive.usd_per_byte_second()));
  CHECK(memory_price{.usd = 200, .bytes = 0.5, .service_years = 0.25}.usd_per_byte_second() ==
        doctest::Approx(200 / 0.5 / (0.25 * 365 * 86'400.0)));
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

}  // namespace instinfer::test_cost
