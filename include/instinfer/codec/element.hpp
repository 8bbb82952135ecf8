#pragma once
// Storage element types of K and V: fp32, fp16 and bf16, with conversions that round to nearest
// even.

#include <bit>
#include <concepts>
#include <cstdint>

#include "instinfer/codec/float_rules.hpp"
#include "instinfer/codec/unit_rules.hpp"

namespace instinfer {

using fp32 = float;

// IEEE 754 binary16: 1 sign, 5 exponent, 10 fraction bits. For storage only: arithmetic is in fp32.
struct fp16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(fp16, fp16) = default;
};

// bfloat16: the upper half of an fp32.
struct bf16 {
  std::uint16_t bits = 0;
  friend constexpr bool operator==(bf16, bf16) = default;
};

template <class E>
concept Element = std::same_as<E, fp32> || std::same_as<E, fp16> || std::same_as<E, bf16>;

constexpr float to_float(fp32 x) { return x; }

constexpr float to_float(bf16 x) { return std::bit_cast<float>(std::uint32_t{x.bits} << 16); }

// Without a branch, so that loops over it vectorise: the fraction, with the 1 in front of it unless
// x is subnormal, times a power of 2 is exact in fp32. The exponent of infinity and NaN is set
// after that.
constexpr float to_float(fp16 x) {
  const std::uint32_t sign = (x.bits & 0x8000u) << 16;
  const std::uint32_t exponent = (x.bits >> 10) & 0x1Fu;
  const std::uint32_t normal = exponent > 0 ? 1 : 0;
  const std::uint32_t fraction = (x.bits & 0x3FFu) | normal << 10;
  const std::uint32_t scale = (exponent + 1 - normal + (127 - 25)) << 23;
  const float magnitude =
      static_cast<float>(static_cast<std::int32_t>(fraction)) * std::bit_cast<float>(scale);
  const std::uint32_t beyond = (exponent + 1) >> 5;  // 1 for infinity and NaN
  return std::bit_cast<float>(sign | beyond * 0x7F80'0000u |
                              std::bit_cast<std::uint32_t>(magnitude));
}

// The bits of |x|: those of finite numbers are in the order of their magnitudes.
constexpr std::uint32_t magnitude_bits(fp32 x) {
  return std::bit_cast<std::uint32_t>(x) & 0x7FFF'FFFFu;
}
constexpr std::uint16_t magnitude_bits(fp16 x) { return x.bits & 0x7FFFu; }
constexpr std::uint16_t magnitude_bits(bf16 x) { return x.bits & 0x7FFFu; }

namespace detail {

// Drops the lowest `shift` bits of x, rounding to nearest, ties to even.
constexpr std::uint32_t round_shift(std::uint32_t x, int shift) {
  const std::uint32_t half = 1u << (shift - 1);
  const std::uint32_t odd = (x >> shift) & 1u;
  return (x + half - 1 + odd) >> shift;
}

}  // namespace detail

// Nearest E to x, ties to even; values beyond the range become infinity, NaN stays NaN.
template <Element E>
constexpr E from_float(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7FFF'FFFFu;
  const bool is_nan = magnitude > 0x7F80'0000u;
  if constexpr (std::same_as<E, fp32>) {
    return x;
  } else if constexpr (std::same_as<E, bf16>) {
    const std::uint32_t rounded = is_nan ? (bits >> 16) | 0x40u : detail::round_shift(bits, 16);
    return bf16{static_cast<std::uint16_t>(rounded)};
  } else {
    std::uint32_t half = 0;
    if (is_nan) {
      half = 0x7E00u;
    } else if (magnitude >= 0x477F'F000u) {  // 65520 and above round to infinity
      half = 0x7C00u;
    } else if (magnitude >= 0x3880'0000u) {  // normal: 2^-14 and above; rebias 127 -> 15
      half = detail::round_shift(magnitude - (112u << 23), 13);
    } else if (magnitude > 0x3300'0000u) {  // subnormal: above 2^-25, in units of 2^-24
      const int shift = 126 - static_cast<int>(magnitude >> 23);
      half = detail::round_shift((magnitude & 0x7F'FFFFu) | 0x80'0000u, shift);
    }
    return fp16{static_cast<std::uint16_t>(sign | half)};
  }
}

// True unless x is NaN or infinite. It tests the exponent bits, so it vectorises and holds under
// -ffast-math.
constexpr bool is_finite(fp32 x) {
  return (std::bit_cast<std::uint32_t>(x) & 0x7F80'0000u) != 0x7F80'0000u;
}
constexpr bool is_finite(fp16 x) { return (x.bits & 0x7C00u) != 0x7C00u; }
constexpr bool is_finite(bf16 x) { return (x.bits & 0x7F80u) != 0x7F80u; }

// The largest finite number of E.
template <Element E>
inline constexpr float largest_finite = std::same_as<E, fp32>   ? 0x1.fffffep127f
                                        : std::same_as<E, fp16> ? 65504.0f
                                                                : 0x1.fep127f;

// Largest relative rounding error of a normal number stored as E: half a unit in the last place.
template <Element E>
inline constexpr double rounding_error = std::same_as<E, fp32>   ? 0x1p-24
                                         : std::same_as<E, fp16> ? 0x1p-11
                                                                 : 0x1p-8;

// Short name as used in safetensors headers and benchmark names.
template <Element E>
inline constexpr const char* element_name = std::same_as<E, fp32>   ? "fp32"
                                            : std::same_as<E, fp16> ? "fp16"
                                                                    : "bf16";

}  // namespace instinfer
