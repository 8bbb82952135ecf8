#pragma once
// Exact top-k over scores, ties to the lower index: the arg-top-k unit of InstInfer Fig. 8, for all
// paths.

#include <algorithm>
#include <bit>
#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "instinfer/core/index_set.hpp"
#include "instinfer/core/scratch.hpp"

namespace instinfer {

// An unsigned integer with the order of the number x, so that selection is defined for every bit
// pattern. A NaN sorts beyond the infinity of its sign.
template <std::floating_point T>
constexpr auto order_key(T x) {
  using bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  constexpr bits sign = bits{1} << (sizeof(bits) * 8 - 1);
  const bits b = std::bit_cast<bits>(x == T{0} ? T{0} : x);  // -0 ties with +0
  return (b & sign) != 0 ? static_cast<bits>(~b) : static_cast<bits>(b | sign);
}

template <std::floating_point T>
using order_key_t = decltype(order_key(T{}));

// Adds the indices of the k largest scores to `chosen` (which must be empty), in ascending order.
// If k >= scores.size(), adds all. `scratch` keeps its memory between calls. O(n) on average.
template <std::floating_point T>
void top_k(std::span<const T> scores, std::uint32_t k, index_set& chosen,
           std::vector<order_key_t<T>>& scratch) {
  const auto n = static_cast<std::uint32_t>(scores.size());
  if (k >= n) {
    chosen.add(0, n);
    return;
  }
  if (k == 0) {
    return;
  }
  resize_scratch(scratch, n);
  std::ranges::transform(scores, scratch.begin(), [](T x) { return order_key(x); });
  const auto kth = scratch.begin() + (k - 1);
  std::nth_element(scratch.begin(), kth, scratch.end(), [](auto a, auto b) { return a > b; });
  const order_key_t<T> threshold = *kth;
  auto ties = static_cast<std::uint32_t>(
      k - std::count_if(scratch.begin(), kth, [&](auto key) { return key > threshold; }));
  for (std::uint32_t i = 0; i < n; ++i) {
    const order_key_t<T> key = order_key(scores[i]);
    if (key > threshold || (key == threshold && ties > 0)) {
      ties -= key == threshold ? 1 : 0;
      chosen.add(i);
    }
  }
}

}  // namespace instinfer
