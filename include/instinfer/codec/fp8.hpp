#pragma once
// fp8: the e4m3 format of the OCP 8-bit floating point specification (OFP8, 2023), for quantised
// pages.

#include <algorithm>
#include <limits>

#include "instinfer/codec/element.hpp"
#include "instinfer/codec/round.hpp"

namespace instinfer {

// 1 sign bit, 4 exponent bits (bias 7), 3 fraction bits. Subnormals are multiples of 2^-9. The
// largest value is 448. The format has no infinity. NaN has all bits below the sign set.
struct fp8 {
  std::uint8_t bits = 0;
  friend constexpr bool operator==(fp8, fp8) = default;
};

constexpr float to_float(fp8 x) {
  const std::uint32_t magnitude = x.bits & 0x7Fu;
  const float value = magnitude == 0x7F ? std::numeric_limits<float>::quiet_NaN()
                      : magnitude < 8   ? static_cast<float>(magnitude) * 0x1p-9f
                                        : std::bit_cast<float>((magnitude + (120u << 3)) << 20);
  return (x.bits & 0x80u) != 0 ? -value : value;
}

// Nearest fp8 to x, ties to even. Values beyond 448 become 448; NaN stays NaN.
constexpr fp8 to_fp8(float x) {
  constexpr std::uint32_t largest = 0x7E;
  constexpr std::uint32_t least_normal = 0x3C80'0000u;  // 2^-6
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t magnitude = bits & 0x7FFF'FFFFu;
  // Both ways for every value, and no branch, so that loops over it vectorise.
  const std::uint32_t normal =
      std::min(detail::round_shift(std::max(magnitude, least_normal) - (120u << 23), 20), largest);
  const float small = std::bit_cast<float>(std::min(magnitude, least_normal));
  const auto subnormal = static_cast<std::uint32_t>(round_to_int(small * 0x1p9f));
  const std::uint32_t code = magnitude > 0x7F80'0000u    ? 0x7F
                             : magnitude >= least_normal ? normal
                                                         : subnormal;
  return {static_cast<std::uint8_t>((bits >> 24 & 0x80u) | code)};
}

}  // namespace instinfer
