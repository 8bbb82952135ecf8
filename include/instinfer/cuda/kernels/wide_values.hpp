#pragma once
// Values that are loaded and stored at once: softmax states, and four words or fp32 numbers.

#include <cstdint>
#include <limits>

namespace instinfer::cuda {

// A maximum and a sum of 2^(logit - maximum), loaded at once.
struct alignas(8) float_pair {
  float max;
  float sum;
};

// The state of what two states are of.
template <class Lane>
constexpr float_pair merged(const Lane& lane, const float_pair& x, const float_pair& y) {
  const float max = x.max > y.max ? x.max : y.max;
  const float from = max > -std::numeric_limits<float>::infinity() ? max : 0.0f;
  return {max, x.sum * lane.exp2(x.max - from) + y.sum * lane.exp2(y.max - from)};
}

// 16 bytes of words, loaded at once.
struct alignas(16) word_quad {
  std::uint32_t x[4];
};

// 16 bytes of fp32, loaded at once.
struct alignas(16) float_quad {
  float x[4];
};

}  // namespace instinfer::cuda
