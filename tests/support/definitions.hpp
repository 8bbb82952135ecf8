#pragma once
// What oracles compute from the definitions: masks, counts that are kept, logits, softmax. Nothing
// here calls the library, so that no oracle asks the code that it judges; of logit_rule only the
// fields are read.

#include <cmath>
#include <limits>
#include <vector>

#include <Eigen/Core>

namespace instinfer::test {

using matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using row_vector = Eigen::RowVectorXd;

// Of the live tokens [first, last), those that the newest one's query sees: the `window` newest
// (0: all), and the `sinks` oldest.
inline std::vector<int> defined_visible(int first, int last, int window, int sinks) {
  std::vector<int> seen;
  for (int t = first; t < last; ++t) {
    const int newer = last - 1 - t;
    const int older = t - first;
    if (window == 0 || newer < window || older < sinks) {
      seen.push_back(t);
    }
  }
  return seen;
}
inline std::vector<int> defined_visible(int first, int last, const auto& rule) {
  return defined_visible(first, last, static_cast<int>(rule.window), static_cast<int>(rule.sinks));
}

// The least number that is at least `share` of `available`, but for the rounding of shares like
// 1/3; a positive share of something is never nothing.
inline int defined_kept(double share, int available) {
  int kept = 0;
  while (kept < available && (kept + 1e-9 < share * available || (kept == 0 && share > 0))) {
    ++kept;
  }
  return kept;
}

// The logit of a product q.k: scaled by 1/sqrt(k_dim) or the rule's own scale, then capped.
inline double defined_logit(double product, Eigen::Index k_dim, const auto& rule) {
  const double logit = rule.scale > 0 ? product * static_cast<double>(rule.scale)
                                      : product / std::sqrt(static_cast<double>(k_dim));
  const auto cap = static_cast<double>(rule.soft_cap);
  return cap > 0 ? cap * std::tanh(logit / cap) : logit;
}

// exp(x) / sum exp(x); zeros for no or only infinitely small logits.
inline row_vector defined_softmax(const row_vector& logits) {
  double most = -std::numeric_limits<double>::infinity();
  for (const double x : logits) {
    most = std::max(most, x);
  }
  row_vector p = row_vector::Zero(logits.size());
  double sum = 0;
  for (Eigen::Index i = 0; i < p.size() && std::isfinite(most); ++i) {
    p[i] = std::exp(logits[i] - most);
    sum += p[i];
  }
  for (double& x : p) {
    x = sum > 0 ? x / sum : 0.0;
  }
  return p;
}

struct no_rule {
  float scale = 0;
  float soft_cap = 0;
  int window = 0;
  int sinks = 0;
};

// Logit of every token for one query [k_dim] over K [tokens, k_dim]; -inf where the rule hides it.
inline row_vector defined_logits(const row_vector& q, const matrix& K, const auto& rule) {
  row_vector logits = row_vector::Constant(K.rows(), -std::numeric_limits<double>::infinity());
  for (const int t : defined_visible(0, static_cast<int>(K.rows()), rule)) {
    logits[t] = defined_logit(q.dot(K.row(t)), q.size(), rule);
  }
  return logits;
}

// The same as weights: their softmax.
inline row_vector defined_weights(const row_vector& q, const matrix& K, const auto& rule) {
  return defined_softmax(defined_logits(q, K, rule));
}
inline row_vector defined_weights(const row_vector& q, const matrix& K) {
  return defined_weights(q, K, no_rule{});
}

// log(sum exp(x)); -inf for no or only infinitely small logits.
inline double defined_log_sum_exp(const row_vector& logits) {
  double most = -std::numeric_limits<double>::infinity();
  for (const double x : logits) {
    most = std::max(most, x);
  }
  double sum = 0;
  for (const double x : logits) {
    sum += std::isfinite(most) ? std::exp(x - most) : 0.0;
  }
  return std::isfinite(most) ? most + std::log(sum) : most;
}

// Attention of one query over K and V [tokens, v_dim]; zeros without tokens.
inline row_vector defined_attention(const row_vector& q, const matrix& K, const matrix& V,
                                    const auto& rule) {
  return K.rows() == 0 ? row_vector(row_vector::Zero(V.cols()))
                       : row_vector(defined_weights(q, K, rule) * V);
}
inline row_vector defined_attention(const row_vector& q, const matrix& K, const matrix& V) {
  return defined_attention(q, K, V, no_rule{});
}

}  // namespace instinfer::test
