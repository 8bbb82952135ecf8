#pragma once
// DSA and MISA in fp64 on whole matrices: tokens by an indexer's score.

#include <algorithm>
#include <vector>

#include "tests/support/token_lists.hpp"

namespace instinfer::test {

// I [tokens] = sum over `heads` of w_h ReLU(qI_h . kI_s); qI is [heads, dim], kI [tokens, dim].
inline row_vector index_scores(const matrix& qI, const row_vector& w, const matrix& kI,
                               const std::vector<int>& heads) {
  row_vector score = row_vector::Zero(kI.rows());
  for (const int h : heads) {
    score += w[h] * (qI.row(h) * kI.transpose()).cwiseMax(0.0);
  }
  return score;
}

// Means of blocks of kI, the last over what it has, [blocks, dim].
inline matrix block_means(const matrix& kI, int block) {
  matrix means((kI.rows() + block - 1) / block, kI.cols());
  for (Eigen::Index b = 0; b < means.rows(); ++b) {
    const Eigen::Index first = b * block;
    means.row(b) =
        kI.middleRows(first, std::min<Eigen::Index>(block, kI.rows() - first)).colwise().mean();
  }
  return means;
}

// The h heads with the largest mean of |w_h ReLU(qI_h . kbar_b)| over the blocks.
inline std::vector<int> misa_heads(const matrix& qI, const row_vector& w, const matrix& means,
                                   int h) {
  row_vector energy(qI.rows());
  for (Eigen::Index head = 0; head < qI.rows(); ++head) {
    energy[head] = (w[head] * (qI.row(head) * means.transpose()).cwiseMax(0.0)).cwiseAbs().mean();
  }
  return largest(energy, h);
}

// The k best tokens by all heads.
inline token_list dsa_tokens(const matrix& qI, const row_vector& w, const matrix& kI, int k) {
  const std::vector<int> all = tokens_from_to(0, static_cast<int>(qI.rows()));
  return largest(index_scores(qI, w, kI, all), std::min(k, static_cast<int>(kI.rows())));
}

// The k best tokens by h heads; with candidates > 0 (MISA's hierarchical form) the best
// `candidates` of these by all heads.
inline token_list misa_tokens(const matrix& qI, const row_vector& w, const matrix& kI, int block,
                              int h, int k, int candidates = 0) {
  const auto tokens = static_cast<int>(kI.rows());
  const row_vector few = index_scores(qI, w, kI, misa_heads(qI, w, block_means(kI, block), h));
  if (candidates == 0) {
    return largest(few, std::min(k, tokens));
  }
  const token_list kept = largest(few, std::min(candidates, tokens));
  token_list chosen;
  for (const int at : dsa_tokens(qI, w, kI(kept, Eigen::all), k)) {
    chosen.push_back(kept[static_cast<std::size_t>(at)]);
  }
  return chosen;
}

}  // namespace instinfer::test
