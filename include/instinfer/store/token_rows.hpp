#pragma once
// K and V rows of a run of one head's tokens.

#include <algorithm>
#include <vector>

#include "instinfer/codec/element.hpp"

namespace instinfer::store {

template <class E>
struct token_rows {
  std::vector<E> k;  // [run, k_dim]
  std::vector<E> v;  // [run, v_dim]
};

// The same values as fp32.
template <class E>
std::vector<float> widened(const std::vector<E>& x) {
  std::vector<float> wide(x.size());
  std::ranges::transform(x, wide.begin(), [](E e) { return to_float(e); });
  return wide;
}

}  // namespace instinfer::store
