#pragma once
// What methods are compared on: a cache, the queries of its decode, and the exact answers to them.

#include <cmath>
#include <string>
#include <vector>

#include "instinfer/reference/exact.hpp"
#include "support/kv_trace.hpp"
#include "support/workload.hpp"

namespace instinfer::methods {

// One layer: k, v [tokens, kv_heads, head_dim], q [queries, q_heads, head_dim].
struct layer_case {
  std::vector<fp16> k;
  std::vector<fp16> v;
  std::vector<float> q;
};

struct decode_case {
  std::string name;
  std::size_t q_heads = 1;
  std::size_t kv_heads = 1;
  std::size_t head_dim = 64;
  std::size_t tokens = 0;
  std::size_t queries = 0;
  // The last queries. Those before them are history, and calibrate thresholds.
  std::size_t measured = 0;
  // Query i is that of token tokens - queries + i. Otherwise all queries see the whole cache.
  bool consecutive = false;
  std::vector<layer_case> layers;

  std::size_t first_measured() const { return queries - measured; }
  std::size_t prompt() const { return consecutive ? tokens - queries : tokens; }
  std::size_t seen_by(std::size_t query) const {
    return consecutive ? prompt() + query + 1 : tokens;
  }
  std::span<const float> query(std::size_t layer, std::size_t i) const {
    return std::span(layers[layer].q).subspan(i * q_heads * head_dim, q_heads * head_dim);
  }
};

inline std::vector<fp16> stored(std::span<const float> x) {
  std::vector<fp16> to(x.size());
  std::ranges::transform(x, to.begin(), [](float value) { return from_float<fp16>(value); });
  return to;
}

// The decode of a recorded trace: its last queries, one after the other.
inline decode_case of_trace(const trace::kv_trace& t, std::size_t measured) {
  decode_case c{.name = "trace",
                .q_heads = t.q_heads(),
                .kv_heads = t.kv_heads(),
                .head_dim = t.head_dim(),
                .tokens = t.tokens(),
                .queries = t.queries(),
                .measured = std::min(measured, t.queries()),
                .consecutive = true,
                .layers = {}};
  for (const trace::layer& l : t.layers) {
    c.layers.push_back({stored(l.k.values), stored(l.v.values), l.q.values});
  }
  return c;
}

// Queries of a synthetic cache all see the whole of it; the first half of them calibrates.
inline decode_case of_sample(const std::string& name, const workload::sample& s) {
  const auto queries = static_cast<std::size_t>(s.queries());
  return {.name = name,
          .head_dim = static_cast<std::size_t>(s.dim),
          .tokens = static_cast<std::size_t>(s.tokens()),
          .queries = queries,
          .measured = queries / 2,
          .layers = {{stored(s.k), stored(s.v), s.q}}};
}

// fp64 attention over the values as stored, of the measured queries.
struct exact_answer {
  std::vector<double> weights;   // [tokens seen]
  reference::row_vector output;  // [head_dim]
};
// [layers][measured][q_heads]
using exact_answers = std::vector<std::vector<std::vector<exact_answer>>>;

inline exact_answers solve(const decode_case& c) {
  const auto head_matrix = [&](const std::vector<fp16>& x, std::size_t head) {
    reference::matrix m(c.tokens, c.head_dim);
    for (std::size_t t = 0; t < c.tokens; ++t) {
      for (std::size_t i = 0; i < c.head_dim; ++i) {
        m(static_cast<Eigen::Index>(t), static_cast<Eigen::Index>(i)) =
            static_cast<double>(to_float(x[(t * c.kv_heads + head) * c.head_dim + i]));
      }
    }
    return m;
  };
  exact_answers all;
  for (std::size_t l = 0; l < c.layers.size(); ++l) {
    auto& answers = all.emplace_back(c.measured, std::vector<exact_answer>(c.q_heads));
    for (std::size_t h = 0; h < c.q_heads; ++h) {
      const reference::matrix K = head_matrix(c.layers[l].k, h * c.kv_heads / c.q_heads);
      const reference::matrix V = head_matrix(c.layers[l].v, h * c.kv_heads / c.q_heads);
      for (std::size_t i = 0; i < c.measured; ++i) {
        const auto seen = static_cast<Eigen::Index>(c.seen_by(c.first_measured() + i));
        const std::span<const float> q =
            c.query(l, c.first_measured() + i).subspan(h * c.head_dim, c.head_dim);
        reference::row_vector wide(static_cast<Eigen::Index>(q.size()));
        std::ranges::transform(q, wide.begin(), [](float x) { return static_cast<double>(x); });
        const reference::row_vector w = reference::attention_weights(wide, K.topRows(seen));
        answers[i][h] = {{w.begin(), w.end()}, w * V.topRows(seen)};
      }
    }
  }
  return all;
}

}  // namespace instinfer::methods
