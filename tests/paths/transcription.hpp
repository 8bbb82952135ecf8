#pragma once
// Alg. 1 of InstInfer in fp64 on whole matrices, line by line, without machine, pages or plan: what
// every path's SparF and SparQ are compared with. The selections can be given, so that a path whose
// fp32 scores tie is held to its own.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "instinfer/core/logit_rule.hpp"
#include "tests/support/definitions.hpp"

namespace instinfer::test {

struct sparf_selection {
  std::vector<int> dims;
  std::vector<int> tokens;  // among the visible ones, by absolute position
};

struct sparf_result {
  matrix out;       // [group, v_dim]
  row_vector rank;  // summed s-hat (SparQ: logits) of every token; -1e300 where it is masked
  sparf_selection chosen;
};

// Indices of the k largest, ties to the lower, ascending.
inline std::vector<int> largest(const row_vector& x, int k) {
  std::vector<int> order(static_cast<std::size_t>(x.size()));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, [&](int a, int b) { return x[a] > x[b]; });
  order.resize(static_cast<std::size_t>(k));
  std::ranges::sort(order);
  return order;
}

// Q [group, k_dim], K [S, k_dim], V [S, v_dim]; r dims, k tokens, `local` newest always kept. SparQ
// ranks by logits.
inline sparf_result transcribed_sparf(const matrix& Q, const matrix& K, const matrix& V, int r,
                                      int k, int local, bool by_logits, const logit_rule& rule,
                                      const std::optional<sparf_selection>& given = {}) {
  const std::vector<int> visible = defined_visible(0, static_cast<int>(K.rows()), rule);

  // l. 1
  const std::vector<int> i = given ? given->dims : largest(Q.cwiseAbs().colwise().sum(), r);
  matrix s_hat = matrix::Zero(Q.rows(), K.rows());
  row_vector logit_sum = row_vector::Zero(K.rows());
  for (Eigen::Index h = 0; h < Q.rows(); ++h) {  // l. 2-8
    double chosen_norm = 0;
    for (const int dim : i) {
      chosen_norm += std::abs(Q(h, dim));
    }
    const double norm = Q.row(h).cwiseAbs().sum();
    const double temperature = chosen_norm > 0 ? std::sqrt(chosen_norm / norm) : 1.0;
    row_vector logits(static_cast<Eigen::Index>(visible.size()));
    for (std::size_t at = 0; at < visible.size(); ++at) {
      double product = 0;
      for (const int dim : i) {
        product += Q(h, dim) * K(visible[at], dim);
      }
      logits[static_cast<Eigen::Index>(at)] = defined_logit(product / temperature, K.cols(), rule);
    }
    const row_vector p = defined_softmax(logits);
    for (std::size_t at = 0; at < visible.size(); ++at) {
      s_hat(h, visible[at]) = p[static_cast<Eigen::Index>(at)];
      logit_sum[visible[at]] += logits[static_cast<Eigen::Index>(at)];
    }
  }
  row_vector rank = row_vector::Constant(K.rows(), -1e300);
  for (const int t : visible) {
    rank[t] = by_logits ? logit_sum[t] : s_hat.col(t).sum();
  }
  row_vector forced = rank;
  for (int n = 0; n < local; ++n) {
    forced[visible[visible.size() - 1 - static_cast<std::size_t>(n)]] = 1e300;
  }
  const std::vector<int> j = given ? given->tokens : largest(forced, k);  // l. 10

  const bool masked = visible.size() < static_cast<std::size_t>(K.rows());
  sparf_result result{matrix::Zero(Q.rows(), V.cols()), rank, {i, j}};
  row_vector mean = row_vector::Zero(V.cols());
  if (V.rows() > 0) {
    mean = V.colwise().mean();
  }
  for (Eigen::Index h = 0; h < Q.rows(); ++h) {
    row_vector logits(static_cast<Eigen::Index>(j.size()));
    double alpha = 0.0;  // l. 11
    for (std::size_t at = 0; at < j.size(); ++at) {
      logits[static_cast<Eigen::Index>(at)] =
          defined_logit(Q.row(h).dot(K.row(j[at])), K.cols(), rule);
      alpha += s_hat(h, j[at]);
    }
    alpha = masked ? 1.0 : alpha;                  // the mean knows hidden values: no blend
    const row_vector s = defined_softmax(logits);  // l. 12-18
    for (std::size_t at = 0; at < j.size(); ++at) {
      result.out.row(h) += alpha * s[static_cast<Eigen::Index>(at)] * V.row(j[at]);
    }
    result.out.row(h) += (1.0 - alpha) * mean;  // l. 19
  }
  return result;
}

}  // namespace instinfer::test
