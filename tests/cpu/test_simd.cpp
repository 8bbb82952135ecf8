// Loads of elements as fp32.

#include <doctest/doctest.h>

#include "instinfer/cpu/simd-inl.hpp"
#include "kernel_checks.hpp"

using namespace instinfer;
using namespace instinfer::test;

TEST_CASE("loads widen every finite value exactly") {
  std::vector<fp16> half(65536 + cpu::lanes);
  std::vector<bf16> brain(65536 + cpu::lanes);
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    half[bits].bits = static_cast<std::uint16_t>(bits);
    brain[bits].bits = static_cast<std::uint16_t>(bits);
  }
  float wide[16];
  for (std::uint32_t bits = 1; bits < 65536; bits += cpu::lanes) {  // from odd addresses
    const auto check = [&](const auto* from) {
      cpu::hn::StoreU(cpu::load(from), cpu::float_tag{}, wide);
      for (std::uint32_t i = 0; i < cpu::lanes; ++i) {
        if (is_finite(from[i])) {
          REQUIRE(std::bit_cast<std::uint32_t>(wide[i]) ==
                  std::bit_cast<std::uint32_t>(to_float(from[i])));
        }
      }
    };
    check(half.data() + bits);
    check(brain.data() + bits);
  }
}
