#pragma once
// A float as a sum of values of bf16, for matrix tiles, which multiply bf16.

#include <array>
#include <bit>
#include <cstdint>

#include "instinfer/codec/element.hpp"
#include "instinfer/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Each part has the upper half of the bits of what is left; the last one is rounded to nearest.
// Three parts have all 24 bits of a float. The relative error of two is 2^-17, of one 2^-9.
template <std::uint32_t Parts>
struct bf16_parts {
  static constexpr std::uint32_t count = Parts;

  static std::array<bf16, Parts> of(float x) {
    std::array<bf16, Parts> parts;
    for (std::uint32_t i = 0; i < Parts; ++i) {
      const std::uint32_t bits = std::bit_cast<std::uint32_t>(x) + rounding(i);
      parts[i].bits = static_cast<std::uint16_t>(bits >> 16);
      x -= to_float(parts[i]);
    }
    return parts;
  }

  // to[part * stride + i]: the parts of even[i] and of odd[i], as a pair.
  static HWY_INLINE void pair(float_vec even, float_vec odd, std::uint32_t* to,
                              std::size_t stride) {
    const float_tag f;
    const hn::RebindToUnsigned<float_tag> words;
    for (std::uint32_t i = 0; i < Parts; ++i) {
      const auto of_even = upper_half(even, i);
      const auto of_odd = upper_half(odd, i);
      hn::Store(hn::Or(hn::ShiftRight<16>(of_even), of_odd), words, to + i * stride);
      even = hn::Sub(even, hn::BitCast(f, of_even));
      odd = hn::Sub(odd, hn::BitCast(f, of_odd));
    }
  }

 private:
  // Half of the last bit. Nothing is left to be rounded after three parts.
  static constexpr std::uint32_t rounding(std::uint32_t part) {
    return part + 1 == Parts && Parts < 3 ? 0x8000 : 0;
  }
  static HWY_INLINE auto upper_half(float_vec x, std::uint32_t part) {
    const hn::RebindToUnsigned<float_tag> words;
    const auto bits = hn::Add(hn::BitCast(words, x), hn::Set(words, rounding(part)));
    return hn::And(bits, hn::Set(words, 0xFFFF0000u));
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
