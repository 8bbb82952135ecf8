#pragma once
// Loops whose index is a constant in each turn, so that what they index stays in registers under every compiler.

#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

namespace instinfer::cuda {

// f(std::integral_constant<std::uint32_t, i>) for i in [0, N).
template <std::uint32_t N, class F>
constexpr void unrolled(F&& f) {
  [&]<std::uint32_t... I>(std::integer_sequence<std::uint32_t, I...>) {
    (f(std::integral_constant<std::uint32_t, I>{}), ...);
  }(std::make_integer_sequence<std::uint32_t, N>{});
}

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
