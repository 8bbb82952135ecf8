#pragma once
// Values that one instruction loads or stores: softmax states, and four words or fp32 numbers.

#include <cstdint>
#include <limits>

#include "instinfer/codec/unit_rules.hpp"

namespace instinfer::cuda {

// A softmax state of 8 bytes: the largest logit, and the sum of 2^(logit - max).
struct alignas(8) float_pair {
  float max;
  float sum;
};

// The state of all that two states cover. Two empty states give an empty one, not NaN.
template <class Lane>
constexpr float_pair merged(const Lane& lane, const float_pair& x, const float_pair& y) {
  const float max = x.max > y.max ? x.max : y.max;
  const float from = max > -std::numeric_limits<float>::infinity() ? max : 0.0f;
  return {max, x.sum * lane.exp2(x.max - from) + y.sum * lane.exp2(y.max - from)};
}

// Four words: 16 bytes, one load.
struct alignas(16) word_quad {
  std::uint32_t x[4];
};

// Four fp32 numbers: 16 bytes, one load.
struct alignas(16) float_quad {
  float x[4];
};

}  // namespace instinfer::cuda
