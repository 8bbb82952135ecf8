#include <doctest/doctest.h>

#include "instinfer/system/spec/links.hpp"

namespace instinfer::test_links {

using namespace system;

TEST_CASE("links by generation and width") {
  CHECK(pcie(3, 4).bytes_per_s == 4e9);
  CHECK(pcie(4, 16).bytes_per_s == 32e9);  // the paper's figure
  CHECK(pcie(5, 4).bytes_per_s == 16e9);
  CHECK(pcie(6, 1).bytes_per_s == 8e9);
  CHECK_THROWS_WITH_AS(pcie(7, 1), doctest::Contains("got generation 7 x1"), bad_argument);
  CHECK_THROWS_WITH_AS(pcie(4, 3), doctest::Contains("got generation 4 x3"), bad_argument);
}

}  // namespace instinfer::test_links
