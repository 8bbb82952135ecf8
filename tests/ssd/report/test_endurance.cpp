// The paper's endurance arithmetic by hand.

#include <doctest/doctest.h>

#include <cmath>

#include "instinfer/ssd/report/endurance.hpp"

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

}  // namespace instinfer::test_endurance
