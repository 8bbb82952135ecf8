#pragma once
// PCIe links by generation and width.

#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/transfer/concepts.hpp"

namespace instinfer::system {

// The commonly quoted rate: 1, 2 and 4 GB/s per lane for generations 3, 4 and 5, like the paper's
// "32 GB/s" for PCIe 4 x16. The line code alone takes 1.5 % of it. The latency of a request is
// assumed, as in transfer/concepts.hpp. Throws bad_argument for another generation or width.
constexpr transfer::link_spec pcie(int generation, int lanes) {
  require(
      generation >= 3 && generation <= 6 &&
          (lanes == 1 || lanes == 2 || lanes == 4 || lanes == 8 || lanes == 16),
      [&] {
        return "pcie: generations 3 to 6 and 1, 2, 4, 8 or 16 lanes are known, got generation " +
               std::to_string(generation) + " x" + std::to_string(lanes);
      });
  return {.bytes_per_s = 1e9 * (1 << (generation - 3)) * lanes, .latency_ns = 2'000};
}

}  // namespace instinfer::system
