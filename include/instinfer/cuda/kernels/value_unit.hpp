#pragma once
// The range of sums of weights times values in the attention kernel. A sum is not divided before
// the end, and its mean can be the largest number of a type.

#include <bit>
#include <limits>

#include "instinfer/cuda/kernels/page_codes.hpp"

namespace instinfer::cuda {

// The unit in which weights times values are summed over n tokens, a power of 2: the output is sum
// of weights times values / sum of weights * unit.
//   bf16   Weights 2^(logit - max) divided by the unit add up to at most 1/2, so sums stay finite.
//          P has the exponents of fp32, so it loses no bit.
//   fp16   1: no sum of 65504s comes near the largest fp32, while P would lose bits.
//   codes  Sums of P V are small, but weights are relative to the largest logit plus log2 of its V
//          scale, from 2^-60 to 2^121. In a unit of 2^40 the largest weight is 2^100 to 2^-81:
//          there is room for the sum of 16M of them, and for those that are 2^-45 of it.
template <class E, class Code>
constexpr float value_unit([[maybe_unused]] std::uint32_t n) {
  if constexpr (is_coded<Code>) {
    return 0x1p40f;
  } else if constexpr (std::same_as<E, bf16>) {
    // std::bit_width is unsigned or int, by the standard library.
    const std::uint64_t power = n == 0 ? 1 : static_cast<std::uint64_t>(std::bit_width(n - 1)) + 1;
    return std::bit_cast<float>(static_cast<std::uint32_t>((127 + power) << 23));
  } else {
    return 1.0f;
  }
}

// Limits a mean of values that are stored as Code to their finite numbers: rounding can lift it
// over the largest one. NaN stays.
template <class Code>
constexpr float finite_value(float x) {
  float most = std::numeric_limits<float>::max();
  if constexpr (!is_coded<Code>) {
    most = largest_finite<Code>;
  }
  return x > most ? most : x < -most ? -most : x;
}

}  // namespace instinfer::cuda
