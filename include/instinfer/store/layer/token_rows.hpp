#pragma once
// K and V rows of a run of one head's tokens.

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "instinfer/codec/element.hpp"

namespace instinfer::store {

template <class E>
struct token_rows {
  std::vector<E> k;  // [run, k_dim]
  std::vector<E> v;  // [run, v_dim]
};

// Rows of `dims` values with zeros added up to `row` values: in `rows`, or x where none are added.
template <class E>
std::span<const E> padded_rows(std::span<const E> x, std::size_t dims, std::size_t row,
                               std::vector<E>& rows) {
  if (dims == row) {
    return x;
  }
  rows.resize(x.size() / dims * row);
  for (std::size_t i = 0; i < x.size(); ++i) {
    rows[i / dims * row + i % dims] = x[i];
  }
  return rows;
}

// The same values as fp32.
template <class E>
std::vector<float> widened(const std::vector<E>& x) {
  std::vector<float> wide(x.size());
  std::ranges::transform(x, wide.begin(), [](E e) { return to_float(e); });
  return wide;
}

}  // namespace instinfer::store
