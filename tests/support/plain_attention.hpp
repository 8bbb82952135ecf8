#pragma once
// Dense attention over vectors in fp64, from the definition: an oracle that knows no page, format
// or path.

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <vector>

#include "instinfer/codec/element.hpp"

namespace instinfer::test {

// K [tokens, kv_heads, k_dim], V [tokens, kv_heads, v_dim] and q [q_heads, k_dim].
struct plain_attention {
  int kv_heads;
  int q_heads;
  int k_dim;
  int v_dim;
  std::function<double(int head, int token)> bias{};  // added to the logits

  // out [q_heads, v_dim], of the first `tokens` tokens.
  template <class E>
  std::vector<double> operator()(std::span<const E> k, std::span<const E> v,
                                 std::span<const float> q, int tokens) const {
    const auto at = [](int row, int dims, int i) {
      return static_cast<std::size_t>(row) * static_cast<std::size_t>(dims) +
             static_cast<std::size_t>(i);
    };
    std::vector<double> out(static_cast<std::size_t>(q_heads * v_dim));
    for (int h = 0; h < q_heads; ++h) {
      const int head = h / (q_heads / kv_heads);
      std::vector<double> weights;
      for (int t = 0; t < tokens; ++t) {
        double logit = 0;
        for (int i = 0; i < k_dim; ++i) {
          logit += static_cast<double>(to_float(k[at(t * kv_heads + head, k_dim, i)])) *
                   static_cast<double>(q[at(h, k_dim, i)]);
        }
        weights.push_back(logit / std::sqrt(k_dim) + (bias ? bias(h, t) : 0.0));
      }
      const double most = *std::max_element(weights.begin(), weights.end());
      double sum = 0;
      for (double& w : weights) {
        sum += w = std::exp(w - most);
      }
      for (int t = 0; t < tokens; ++t) {
        for (int i = 0; i < v_dim; ++i) {
          out[at(h, v_dim, i)] +=
              weights[static_cast<std::size_t>(t)] / sum *
              static_cast<double>(to_float(v[at(t * kv_heads + head, v_dim, i)]));
        }
      }
    }
    return out;
  }
};

// The largest difference of two arrays of the same size.
inline double largest_difference(std::span<const float> a, std::span<const double> b) {
  double most = a.size() == b.size() ? 0.0 : 1e300;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    most = std::max(most, std::abs(static_cast<double>(a[i]) - b[i]));
  }
  return most;
}

}  // namespace instinfer::test
