#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>

#include "instinfer/core/budget.hpp"

namespace instinfer::test_budget {

TEST_CASE("a budget keeps a share, rounded up, or a count") {
  CHECK(budget(1.0 / 8).of(64, "r") == 8);
  CHECK(budget(1.0 / 3).of(96, "r") == 32);
  CHECK(budget(1e-6).of(64, "r") == 1);
  CHECK(budget(0.0).of(64, "r") == 0);
  CHECK(budget(1.0).of(64, "r") == 64);
  CHECK(budget(0.5).of(0, "r") == 0);
  CHECK(budget::exactly(5).of(64, "r") == 5);
  CHECK(budget::at_most(100).of(64, "r") == 64);
}

TEST_CASE("a share a/b of n keeps the least whole number that is not below a n / b") {
  for (std::uint32_t b = 1; b <= 12; ++b) {
    for (std::uint32_t a = 0; a <= b; ++a) {
      for (std::uint32_t n = 0; n <= 200; ++n) {
        REQUIRE(budget(static_cast<double>(a) / b).of(n, "r") == (a * n + b - 1) / b);
      }
    }
  }
  CHECK(budget(0.02).of(100, "r") == 2);
  CHECK(budget(0.020001).of(100, "r") == 3);
}

TEST_CASE("a count is kept, or as much of it as there is") {
  for (const std::int64_t n : {0, 1, 5, 64}) {
    CHECK(budget::exactly(n).of(64, "r") == static_cast<std::uint32_t>(n));
    CHECK(budget::at_most(n).of(64, "r") == static_cast<std::uint32_t>(n));
  }
  CHECK(budget::at_most(65).of(64, "r") == 64);
  CHECK(budget::at_most(std::int64_t{1} << 40).of(64, "r") == 64);
}

TEST_CASE("positive refuses a budget that keeps nothing, and no other") {
  for (const budget b : {budget(1e-9), budget(1.0), budget::exactly(1), budget::at_most(7)}) {
    CHECK(&b.positive("r") == &b);
  }
  CHECK_NOTHROW(budget::exactly(std::int64_t{1} << 31).positive("r"));
  for (const budget b : {budget(0.0), budget::exactly(0), budget::at_most(0)}) {
    CHECK_THROWS_WITH_AS(b.positive("heavy"), "heavy: must keep something, got 0", bad_argument);
  }
  CHECK_THROWS_AS(budget(2.0).positive("r"), bad_argument);
  CHECK_THROWS_AS(budget::at_most(-1).positive("r"), bad_argument);
}

TEST_CASE("a budget that cannot be kept says which one, and what would be right") {
  const auto message = [](budget b) {
    try {
      (void)b.of(64, "sparf.keep_dims");
    } catch (const bad_argument& e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  CHECK(message(std::nan("")).find("sparf.keep_dims: a share must lie in [0, 1], got nan") !=
        std::string::npos);
  CHECK(message(1.5).find("a share must lie in [0, 1], got 1.5") != std::string::npos);
  CHECK(message(-0.1).find("[0, 1]") != std::string::npos);
  CHECK(message(budget::exactly(65)).find("exactly 65 were asked for, but there are only 64") !=
        std::string::npos);
  CHECK(message(budget::at_most(-1)).find("must not be negative") != std::string::npos);
}

}  // namespace instinfer::test_budget
