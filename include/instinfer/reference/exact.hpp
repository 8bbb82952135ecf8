#pragma once
// Attention in fp64 on whole matrices, without pages: the oracle for every path and policy.

#include <cmath>
#include <limits>
#include <vector>

#include <Eigen/Core>

#include "instinfer/core/logit_rule.hpp"

namespace instinfer::reference {

// Rows are tokens (or heads), columns are dims; row-major, like the caches of models.
using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using row_vector = Eigen::RowVectorXd;

// exp(x - max) / sum. Entries of -inf give 0; a row with only -inf gives zeros.
inline row_vector softmax(const row_vector& logits) {
  const double max = logits.size() == 0 ? 0.0 : logits.maxCoeff();
  if (logits.size() == 0 || (std::isinf(max) && max < 0.0)) {
    return row_vector::Zero(logits.size());
  }
  const row_vector p = (logits.array() - max).exp();
  return p / p.sum();
}

// Weight of every token for one query q [k_dim] over K [tokens, k_dim], with the rule's scale, cap
// and mask.
inline row_vector attention_weights(const row_vector& q, const matrix& K,
                                    const logit_rule& rule = {}) {
  const double scale = rule.scale_for<double>(static_cast<int>(q.size()));
  index_set seen;
  rule.visible(0, static_cast<std::uint32_t>(K.rows()), seen);
  row_vector logits = row_vector::Constant(K.rows(), -std::numeric_limits<double>::infinity());
  seen.view().for_each([&](std::uint32_t t) { logits[t] = rule.capped(q.dot(K.row(t)) * scale); });
  return softmax(logits);
}

// softmax(q K^T / sqrt(d)) V: one query [k_dim] over K [tokens, k_dim] and V [tokens, v_dim]; zeros
// without tokens.
inline row_vector exact_attention(const row_vector& q, const matrix& K, const matrix& V,
                                  const logit_rule& rule = {}) {
  if (K.rows() == 0) {
    return row_vector::Zero(V.cols());
  }
  return attention_weights(q, K, rule) * V;
}

}  // namespace instinfer::reference
