// The fp64 reference against sums that are written out, without Eigen and without the library.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

#include "instinfer/reference/exact.hpp"

namespace instinfer::test_exact {

using reference::matrix;
using reference::row_vector;

TEST_CASE("softmax: shares of exp, whatever the size of the logits; zeros for nothing") {
  const row_vector p = reference::softmax(row_vector{{1000.0, 1000.0 + std::log(3.0), -1e300}});
  CHECK(p[0] == doctest::Approx(0.25).epsilon(1e-12));
  CHECK(p[1] == doctest::Approx(0.75).epsilon(1e-12));
  CHECK(p[2] == 0);
  constexpr double least = -std::numeric_limits<double>::infinity();
  CHECK(reference::softmax(row_vector{{least, 5.0}}) == row_vector{{0.0, 1.0}});
  CHECK(reference::softmax(row_vector{{least, least}}) == row_vector{{0.0, 0.0}});
  CHECK(reference::softmax(row_vector(0)).size() == 0);
}

TEST_CASE(
    "attention: the mean of V, weighted by exp of scaled and capped products of what is seen") {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  constexpr int tokens = 13, k_dim = 4, v_dim = 3;
  const matrix K = matrix::NullaryExpr(tokens, k_dim, [&] { return normal(random); });
  const matrix V = matrix::NullaryExpr(tokens, v_dim, [&] { return normal(random); });
  const row_vector q = row_vector::NullaryExpr(k_dim, [&] { return 2 * normal(random); });
  for (const logit_rule& rule :
       {logit_rule{}, logit_rule{.scale = 0.7f}, logit_rule{.soft_cap = 1.5f},
        logit_rule{.window = 5}, logit_rule{.soft_cap = 2.0f, .window = 4, .sinks = 2}}) {
    double weight[tokens];
    double sum = 0;
    for (int t = 0; t < tokens; ++t) {
      double product = 0;
      for (int i = 0; i < k_dim; ++i) {
        product += q[i] * K(t, i);
      }
      double logit = product * (rule.scale > 0 ? static_cast<double>(rule.scale) : 0.5);
      if (rule.soft_cap > 0) {
        const auto cap = static_cast<double>(rule.soft_cap);
        logit = cap * std::tanh(logit / cap);
      }
      const int window = static_cast<int>(rule.window);
      const bool seen = window == 0 || t >= tokens - window || t < static_cast<int>(rule.sinks);
      weight[t] = seen ? std::exp(logit) : 0;
      sum += weight[t];
    }
    const row_vector weights = reference::attention_weights(q, K, rule);
    const row_vector out = reference::exact_attention(q, K, V, rule);
    for (int t = 0; t < tokens; ++t) {
      CHECK(weights[t] == doctest::Approx(weight[t] / sum).epsilon(1e-12));
    }
    for (int i = 0; i < v_dim; ++i) {
      double expected = 0;
      for (int t = 0; t < tokens; ++t) {
        expected += weight[t] / sum * V(t, i);
      }
      CHECK(out[i] == doctest::Approx(expected).epsilon(1e-12));
    }
  }
  CHECK(reference::exact_attention(q, K.topRows(0), V.topRows(0)) == row_vector::Zero(v_dim));
}

// docs/methods.md: dims of zeros with the true size's scale change nothing, and a dim of K holds a
// bias of its token.
TEST_CASE("padded heads, and a bias in a dim") {
  std::mt19937 random(2);
  std::normal_distribution<double> normal;
  constexpr int tokens = 9, dims = 5;
  const matrix K = matrix::NullaryExpr(tokens, dims, [&] { return normal(random); });
  const matrix V = matrix::NullaryExpr(tokens, 2, [&] { return normal(random); });
  const row_vector q = row_vector::NullaryExpr(dims, [&] { return normal(random); });
  const logit_rule rule{.scale = static_cast<float>(1 / std::sqrt(double{dims}))};
  const auto scale = static_cast<double>(rule.scale);
  matrix padded = matrix::Zero(tokens, 16);
  padded.leftCols(dims) = K;
  row_vector q_padded = row_vector::Zero(16);
  q_padded.head(dims) = q;
  const row_vector plain = reference::exact_attention(q, K, V, rule);
  CHECK((reference::exact_attention(q_padded, padded, V, rule) - plain).norm() < 1e-14);

  q_padded[dims] = 1;
  row_vector expected = row_vector::Zero(2);
  double sum = 0;
  for (int t = 0; t < tokens; ++t) {
    const double bias = -0.25 * (tokens - 1 - t);  // ALiBi: the slope times the distance
    padded(t, dims) = 0.25 * t / scale;            // the slope times the position
    const double weight = std::exp(scale * q.dot(K.row(t)) + bias);
    sum += weight;
    expected += weight * V.row(t);
  }
  CHECK((reference::exact_attention(q_padded, padded, V, rule) - expected / sum).norm() < 1e-14);
}

}  // namespace instinfer::test_exact
