#pragma once
// A sequence as plain vectors of tokens: what the tests of truncate, fork and endless streams
// compare a cache with. It knows element types, and nothing of pages.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "instinfer/store/sequences/cache_file.hpp"
#include "instinfer/store/sequences/kv_cache.hpp"

namespace instinfer::test {

// Rows of consecutive tokens, each [kv_heads, dim].
template <class E>
struct plain_tokens {
  std::vector<std::vector<E>> k;
  std::vector<std::vector<E>> v;

  std::size_t size() const { return k.size(); }
  void append(const plain_tokens& more) {
    k.insert(k.end(), more.k.begin(), more.k.end());
    v.insert(v.end(), more.v.begin(), more.v.end());
  }
  void truncate(std::size_t tokens) {
    k.resize(tokens);
    v.resize(tokens);
  }
  plain_tokens part(std::size_t first, std::size_t last) const {
    plain_tokens some;
    for (std::size_t t = first; t < last; ++t) {
      some.k.push_back(k[t]);
      some.v.push_back(v[t]);
    }
    return some;
  }
  static std::vector<E> joined(const std::vector<std::vector<E>>& rows) {
    std::vector<E> all;
    for (const std::vector<E>& row : rows) {
      all.insert(all.end(), row.begin(), row.end());
    }
    return all;
  }
};

// Multiples of 1/128 in [-1, 1].
template <class E>
plain_tokens<E> drawn_tokens(std::mt19937& random, std::size_t count, std::size_t row) {
  plain_tokens<E> drawn;
  for (auto* rows : {&drawn.k, &drawn.v}) {
    for (std::size_t t = 0; t < count; ++t) {
      std::vector<E> x(row);
      for (E& e : x) {
        e = from_float<E>(static_cast<float>(static_cast<int>(random() % 257) - 128) / 128);
      }
      rows->push_back(std::move(x));
    }
  }
  return drawn;
}

template <class Cache>
traffic append(Cache& cache, sequence seq, int layer,
               const plain_tokens<typename Cache::element>& tokens) {
  std::vector<page_id> written;
  return cache.append(seq, layer, tokens.joined(tokens.k), tokens.joined(tokens.v), written);
}

// The file of a sequence: all its pages, counts and summaries.
template <class Cache>
std::string saved(const Cache& cache, sequence seq) {
  std::ostringstream out;
  store::save(cache, seq, "", out);
  return out.str();
}

// Every stored value of the live tokens of a layer, at positions [first, tokens.size()), is what
// the plain sequence has, to within `error`; every `step`-th token is looked at.
template <class Cache>
void check_stored(const Cache& cache, sequence seq, int layer, std::size_t first,
                  const plain_tokens<typename Cache::element>& tokens, double error = 0,
                  std::size_t step = 1) {
  const auto kv_heads = static_cast<std::uint32_t>(cache.shape().kv_heads);
  for (std::uint32_t h = 0; h < kv_heads; ++h) {
    const layout::head_pages head = cache.at(seq, layer).head(h);
    REQUIRE(head.tokens - head.first == tokens.size() - first);
    const typename Cache::page_views pages(cache, head);
    for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
      const layout::tile& tile = head.tiles.of(s);
      if (!tile.stored()) {
        continue;
      }
      const auto& rows = s == stream::v_by_token ? tokens.v : tokens.k;
      for (std::size_t i = first; i < tokens.size(); i += step) {
        const auto t = static_cast<std::uint32_t>(head.first + (i - first));
        const bool open = t >= head.of(s).sealed_tokens;
        const std::size_t dims = rows[i].size() / kv_heads;
        double worst = 0;
        for (std::size_t d = 0; d < dims; ++d) {
          const auto dim = static_cast<std::uint32_t>(d);
          const auto page =
              pages({.kind = s,
                     .token_tile = t / tile.tokens,
                     .dim_tile = dim / tile.dims,
                     .page = open ? no_page : head.of(s).page(t / tile.tokens, dim / tile.dims),
                     .buffered = open,
                     .tokens = {},
                     .dims = {}});
          worst = std::max(worst, std::abs(double{page(t % tile.tokens, dim % tile.dims)} -
                                           double{to_float(rows[i][h * dims + d])}));
        }
        CAPTURE(i);
        CAPTURE(stream_name(s));
        REQUIRE(worst <= error);
      }
    }
  }
}

// softmax(q.k / sqrt(dim)) v over tokens [first, size()), in fp64: [q_heads, dim].
template <class E>
std::vector<double> plain_attention(const plain_tokens<E>& tokens, std::size_t first,
                                    const std::vector<float>& q, std::size_t q_heads,
                                    std::size_t kv_heads) {
  const std::size_t dim = q.size() / q_heads;
  std::vector<double> out(q.size());
  for (std::size_t h = 0; h < q_heads; ++h) {
    const std::size_t at = h / (q_heads / kv_heads) * dim;
    std::vector<double> logits;
    for (std::size_t t = first; t < tokens.size(); ++t) {
      double sum = 0;
      for (std::size_t i = 0; i < dim; ++i) {
        sum += double{q[h * dim + i]} * double{to_float(tokens.k[t][at + i])};
      }
      logits.push_back(sum / std::sqrt(static_cast<double>(dim)));
    }
    double most = -1e300;
    for (const double x : logits) {
      most = std::max(most, x);
    }
    double total = 0;
    for (const double x : logits) {
      total += std::exp(x - most);
    }
    for (std::size_t t = 0; t < logits.size(); ++t) {
      for (std::size_t i = 0; i < dim; ++i) {
        out[h * dim + i] +=
            std::exp(logits[t] - most) / total * double{to_float(tokens.v[first + t][at + i])};
      }
    }
  }
  return out;
}

}  // namespace instinfer::test
