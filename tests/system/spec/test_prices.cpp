// Prices: bills, dollars and joules by hand; every part has a price, a power and a source.

#include <doctest/doctest.h>

#include "instinfer/system/spec/prices.hpp"

namespace instinfer::test_prices {

using namespace system;

TEST_CASE("a bill adds up, and its dollars and joules a token are those computed by hand") {
  constexpr priced part{"part", 1'000, 100, "test"};
  const bill two = bill{}.add(part, 2);
  CHECK(two.usd == 2'000);
  CHECK(two.watts == 200);
  // One year of 365 days, 0.36 dollars a kWh: 1e-7 dollars a joule. 200 W x 1.5.
  const running_costs costs{.service_years = 1, .usd_per_kwh = 0.36, .facility = 1.5};
  const double usd_per_s = 2'000 / (365 * 86'400.0) + 300 * 1e-7;
  CHECK(two.usd_per_s(costs) == doctest::Approx(usd_per_s));
  CHECK(two.tokens_per_usd(50, costs) == doctest::Approx(50 / usd_per_s));
  CHECK(two.joules_per_token(50, costs) == doctest::Approx(6));
}

TEST_CASE("more parts never give more tokens for a dollar at the same speed") {
  bill total = bill{}.add(server_chassis);
  double before = total.tokens_per_usd(10);
  for (const priced& part : other_parts) {
    CAPTURE(std::string(part.part));
    total.add(part);
    CHECK(total.tokens_per_usd(10) < before);
    before = total.tokens_per_usd(10);
  }
}

// Conclusions name the prices at which they hold; a price that changes is a decision.
TEST_CASE("prices in dollars and powers in watts") {
  const auto check = [](const priced& part, double usd, double watts) {
    CAPTURE(std::string(part.part));
    CHECK(part.usd == usd);
    CHECK(part.watts == watts);
  };
  check(ssd_pcie4, 170, 6.2);
  check(ssd_pcie5, 250, 11);
  check(csd_pcie4, 400, 6.2 + 13);
  check(csd_pcie5, 700, 11 + 35);
  check(server_chassis, 8'000, 400);
  check(dram_64gb, 300, 6);
  check(cxl_256gb, 1'500, 30);
  check(network_port, 2'500, 40);
  check(price_of(rtx_a6000), 4'650, 300);
  check(price_of(a100_80gb), 15'000, 400);
  check(price_of(h100_sxm), 30'000, 700);
  check(price_of(t4), 2'000, 70);
  check(price_of(rtx_4090), 1'599, 450);
}

TEST_CASE("every part has a price, a power and a source; every GPU its data sheet's power") {
  for (const priced& part : other_parts) {
    CHECK(part.usd > 0);
    CHECK(part.watts > 0);
    CHECK(!part.source.empty());
  }
  for (const gpu_spec& gpu : {rtx_a6000, a100_80gb, h100_sxm, t4, rtx_4090}) {
    CHECK(price_of(gpu).watts == gpu.watts);
    CHECK(!price_of(gpu).source.empty());
  }
  gpu_spec other = t4;
  other.name = "other";
  CHECK_THROWS_WITH_AS(price_of(other), "price_of: no price of other, see system/spec/prices.hpp",
                       bad_argument);
}

}  // namespace instinfer::test_prices
