#pragma once
// Scores of a trained indexer over its keys (DSA), and the choice of index heads (MISA).
// All paths share them; T is the precision of the path.

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "instinfer/core/top_k.hpp"
#include "instinfer/summaries/index_codec.hpp"
#include "instinfer/summaries/index_query.hpp"

namespace instinfer::attention {

inline double index_weight(const index_query& q, std::uint32_t head) {
  return q.weights.empty() ? 1.0 : static_cast<double>(q.weights[head]);
}

namespace detail {

// a.b in 16 partial sums, so that compilers vectorise it. n is a multiple of 16.
template <class T>
T dot_by_lane(const T* a, const T* b, std::size_t n) {
  T sums[16] = {};
  for (std::size_t i = 0; i < n; i += 16) {
    for (std::size_t lane = 0; lane < 16; ++lane) {
      sums[lane] += a[i + lane] * b[i + lane];
    }
  }
  T total{0};
  for (const T sum : sums) {
    total += sum;
  }
  return total;
}

}  // namespace detail

// The queries [heads, Dims] and weights [heads] of some heads. Queries are rotated and coded like
// keys, and decoded again.
template <int Dims, class T>
void decode_index_queries(const index_query& q, index_view heads, std::vector<T>& queries,
                          std::vector<T>& weights) {
  static_assert(Dims % 16 == 0,
                "instinfer: index keys are a multiple of 16 long, see summaries/index_scoring.hpp");
  queries.clear();
  weights.clear();
  heads.for_each([&](std::uint32_t h) {
    const auto query = q.queries.subspan(std::size_t{h} * Dims).template first<Dims>();
    const index_key<Dims> coded = encode_rotated_index_key<Dims>(query);
    for (std::size_t i = 0; i < Dims; ++i) {
      queries.push_back(static_cast<T>(coded[i]));
    }
    weights.push_back(static_cast<T>(index_weight(q, h)));
  });
}

// to [tokens]: the sum over `heads` of w_h relu(q_h . k), in head order.
template <int Dims, class T, class Index>
void score_index(const index_query& q, index_view heads, index_view tokens, const Index& index,
                 std::span<T> to) {
  std::vector<T> queries, weights;
  decode_index_queries<Dims>(q, heads, queries, weights);
  std::array<T, std::size_t{Dims}> key;
  auto at = to.begin();
  tokens.for_each([&](std::uint32_t t) {
    for (std::size_t i = 0; i < Dims; ++i) {
      key[i] = static_cast<T>(index.key(t)[i]);
    }
    T sum{0};
    for (std::size_t h = 0; h < weights.size(); ++h) {
      sum += weights[h] *
             std::max(T{0}, detail::dot_by_lane(queries.data() + h * Dims, key.data(), Dims));
    }
    *at++ = sum;
  });
}

// Adds the k index heads with the highest scores to `chosen`. Returns the number of rows (block
// means or keys) that each head was scored against.
template <int Dims, class Index>
std::uint32_t top_heads(const index_query& q, const Index& index, head_router router,
                        std::uint32_t k, index_set& chosen) {
  const auto heads = static_cast<std::uint32_t>(q.queries.size() / Dims);
  const std::uint32_t rows = router == head_router::block_means ? index.blocks()
                             : router == head_router::newest_key && index.tokens() > 0 ? 1
                                                                                       : 0;
  std::vector<double> energy(heads, 0.0);
  std::array<double, std::size_t{Dims}> key;
  for (std::uint32_t row = 0; row < rows; ++row) {
    if (router == head_router::block_means) {
      index.mean(row, key);
    } else {
      index.newest(key);
    }
    for (std::uint32_t h = 0; h < heads; ++h) {
      double product = 0.0;
      for (std::size_t i = 0; i < Dims; ++i) {
        product += key[i] * static_cast<double>(q.queries[std::size_t{h} * Dims + i]);
      }
      energy[h] += std::abs(index_weight(q, h)) * std::max(0.0, product) / rows;
    }
  }
  for (std::uint32_t h = 0; h < heads && router == head_router::query_norm; ++h) {
    double square = 0.0;
    for (const float x : q.queries.subspan(std::size_t{h} * Dims, Dims)) {
      square += static_cast<double>(x) * static_cast<double>(x);
    }
    energy[h] = std::abs(index_weight(q, h)) * std::sqrt(square);
  }
  std::vector<order_key_t<double>> scratch;
  top_k<double>(energy, k, chosen, scratch);
  return rows;
}

}  // namespace instinfer::attention
