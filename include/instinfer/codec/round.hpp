#pragma once
// Rounding to integers in a form that compilers vectorise.

#include <bit>
#include <cstdint>

namespace instinfer {

// The nearest integer to x, ties to even, for |x| <= 2^22. After adding 1.5 * 2^23 the integer is
// in the lowest bits of the sum.
constexpr std::int32_t round_to_int(float x) {
  constexpr float shift = 0x1.8p23f;
  return static_cast<std::int32_t>(std::bit_cast<std::uint32_t>(x + shift) -
                                   std::bit_cast<std::uint32_t>(shift));
}

}  // namespace instinfer
