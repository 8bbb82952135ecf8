#pragma once
// Lists of tokens, and exact attention within them: what the fp64 transcriptions of selection
// methods are written with. Q is [group, dim], K [tokens, dim], V [tokens, v_dim]; token lists
// ascend.

#include <algorithm>
#include <numeric>
#include <vector>

#include "instinfer/reference/exact.hpp"
#include "tests/paths/transcription.hpp"

namespace instinfer::test {

using token_list = std::vector<int>;

inline token_list tokens_from_to(int first, int last) {
  token_list tokens(static_cast<std::size_t>(std::max(0, last - first)));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

inline token_list joined(const token_list& a, const token_list& b) {
  token_list all;
  std::ranges::set_union(a, b, std::back_inserter(all));
  return all;
}

// Exact attention within the listed tokens, [group, v_dim].
inline matrix attention_over(const matrix& Q, const matrix& K, const matrix& V,
                             const token_list& tokens) {
  const matrix keys = K(tokens, Eigen::all);
  const matrix values = V(tokens, Eigen::all);
  matrix out(Q.rows(), V.cols());
  for (Eigen::Index h = 0; h < Q.rows(); ++h) {
    out.row(h) = test::defined_attention(Q.row(h), keys, values);
  }
  return out;
}

// Share of the softmax over all tokens that the listed ones hold.
inline double mass_of(const row_vector& weights, const token_list& tokens) {
  double mass = 0;
  for (const int t : tokens) {
    mass += weights[t];
  }
  return mass;
}

// Share of `wanted` that is in `found`.
inline double recall(const token_list& wanted, const token_list& found) {
  token_list both;
  std::ranges::set_intersection(wanted, found, std::back_inserter(both));
  return wanted.empty() ? 1.0
                        : static_cast<double>(both.size()) / static_cast<double>(wanted.size());
}

}  // namespace instinfer::test
