#include <doctest/doctest.h>

#include "instinfer/system/spec/links.hpp"

namespace instinfer::test_links {

using namespace system;

TEST_CASE("links by generation and width") {
  CHECK(pcie(3, 4).bytes_per_s == 4e9);
  CHECK(pcie(4, 16).bytes_per_s == 32e9);  // the paper's figure
  CHECK(pcie(5, 4).bytes_per_s == 16e9);
}

}  // namespace instinfer::test_links
