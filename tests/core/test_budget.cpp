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
