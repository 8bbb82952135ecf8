#pragma once
// Random K, V and queries for path tests, and their rows in fp64 exactly as stored.

#include <random>
#include <vector>

#include "checks.hpp"
#include "instinfer/core/shape.hpp"
#include "instinfer/store/layer/extents.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test {

// V of a random_cache is below 5. Times this, it is close to the largest number of fp32 and bf16.
inline constexpr float near_largest = 0x1p125f;

// What the engines of most tests hold. The 256 MiB of the default cost the sanitizers more time
// than the test on them.
inline const store::capacity small_capacity{.bytes = 16 << 20, .context_tokens = 1024};

template <class Format>
struct random_cache {
  using element = typename Format::element;

  // K has a few strong dims and topics, so that sparse methods have something to find; sizes as in
  // small models.
  random_cache(unsigned seed, int tokens_, int q_heads_, int kv_heads_)
      : tokens{tokens_}, q_heads{q_heads_}, kv_heads{kv_heads_} {
    std::mt19937 random(seed);
    normal_distribution normal;
    k.resize(static_cast<std::size_t>(tokens * kv_heads * Format::k_dim));
    v.resize(static_cast<std::size_t>(tokens * kv_heads * Format::v_dim));
    for (std::size_t i = 0; i < k.size(); ++i) {
      k[i] = from_float<element>(normal(random) * (i % Format::k_dim % 7 == 0 ? 3.0f : 0.5f));
    }
    for (element& x : v) {
      x = from_float<element>(normal(random) + 0.3f);
    }
    q.resize(static_cast<std::size_t>(q_heads * Format::k_dim));
    for (std::size_t i = 0; i < q.size(); ++i) {
      q[i] = normal(random) * (i % Format::k_dim % 7 == 0 ? 2.0f : 0.5f);
    }
  }

  // V times a power of 2.
  void multiply_v(float times) {
    for (element& x : v) {
      x = from_float<element>(to_float(x) * times);
    }
  }

  int group() const { return q_heads / kv_heads; }

  // Rows [first, last) of K of a head, [last - first, k_dim].
  matrix K(int head, int first, int last) const {
    return rows(k, head, first, last, Format::k_dim);
  }
  matrix V(int head, int first, int last) const {
    return rows(v, head, first, last, Format::v_dim);
  }
  row_vector Q(int q_head) const {
    row_vector row(Format::k_dim);
    for (int i = 0; i < Format::k_dim; ++i) {
      row[i] = q[static_cast<std::size_t>(q_head * Format::k_dim + i)];
    }
    return row;
  }

  exact_cache exact() const { return exact(0, tokens); }
  exact_cache exact(int first, int last) const {
    exact_cache cache;
    cache.tokens = last - first;
    for (int g = 0; g < kv_heads; ++g) {
      matrix& Q_of_head = cache.Q.emplace_back(group(), Format::k_dim);
      for (int h = 0; h < group(); ++h) {
        Q_of_head.row(h) = Q(g * group() + h);
      }
      cache.K.push_back(K(g, first, last));
      cache.V.push_back(V(g, first, last));
    }
    return cache;
  }

  // Tokens [first, last) as append takes them.
  std::span<const element> k_tokens(int first, int last) const {
    return slice(k, first, last, Format::k_dim);
  }
  std::span<const element> v_tokens(int first, int last) const {
    return slice(v, first, last, Format::v_dim);
  }

  int tokens;
  int q_heads;
  int kv_heads;
  std::vector<element> k;  // [tokens, kv_heads, k_dim]
  std::vector<element> v;  // [tokens, kv_heads, v_dim]
  std::vector<float> q;    // [q_heads, k_dim]

 private:
  matrix rows(const std::vector<element>& x, int head, int first, int last, int dim) const {
    matrix m(last - first, dim);
    for (int t = first; t < last; ++t) {
      for (int i = 0; i < dim; ++i) {
        m(t - first, i) = static_cast<double>(
            to_float(x[static_cast<std::size_t>((t * kv_heads + head) * dim + i)]));
      }
    }
    return m;
  }
  std::span<const element> slice(const std::vector<element>& x, int first, int last,
                                 int dim) const {
    const auto row = static_cast<std::size_t>(kv_heads * dim);
    return std::span(x).subspan(static_cast<std::size_t>(first) * row,
                                static_cast<std::size_t>(last - first) * row);
  }
};

}  // namespace instinfer::test
