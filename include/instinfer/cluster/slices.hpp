#pragma once
// The part of a call's arguments that goes to one drive, and of its results that come from it.

#include <algorithm>
#include <limits>
#include <span>

#include "instinfer/cluster/commands.hpp"
#include "instinfer/cluster/message.hpp"
#include "instinfer/cluster/splits.hpp"
#include "instinfer/core/merge_attention.hpp"
#include "instinfer/engine/attend_request.hpp"

namespace instinfer::cluster {

// The new tokens of an append that a drive has, of `count` tokens from position `first` on.
template <class S>
struct token_slice {
  const S& split;
  const drive_part& part;
  std::uint64_t first = 0;
  std::uint64_t count = 0;

  std::uint64_t tokens_of(std::uint64_t n) const {
    return split.tokens_of(first + n, part.drive, part.drives);
  }
  std::uint64_t size() const { return tokens_of(count) - tokens_of(0); }
  void for_each(auto&& take) const {
    for (std::size_t t = 0; t < count; ++t) {
      if (!S::splits_tokens || tokens_of(t + 1) > tokens_of(t)) {
        take(t);
      }
    }
  }
};

// Puts the count and the values of rows [tokens, all_heads, dim]: the slice's tokens, and of each
// the heads [first, first + heads).
template <class T, class S>
void put_rows(message& m, std::span<const T> rows, const token_slice<S>& tokens, int all_heads,
              int first, int heads, int dim) {
  const auto values = static_cast<std::size_t>(heads) * static_cast<std::size_t>(dim);
  const std::uint64_t n = rows.empty() ? 0 : tokens.size() * values;
  m.put(n);
  if (n == 0) {
    return;
  }
  const std::size_t whole = static_cast<std::size_t>(all_heads) * static_cast<std::size_t>(dim);
  auto to = m.room<T>(n).begin();
  tokens.for_each([&](std::size_t t) {
    const auto row = rows.subspan(
        t * whole + static_cast<std::size_t>(first) * static_cast<std::size_t>(dim), values);
    to = std::copy(row.begin(), row.end(), to);
  });
}

// Query heads [first, first + heads) of `all`, as a drive has them.
struct query_heads {
  std::size_t first = 0;
  std::size_t heads = 0;
  std::size_t all = 0;

  static query_heads of(const drive_part& part) {
    return {static_cast<std::size_t>(part.heads.first * part.whole.group()),
            static_cast<std::size_t>(part.shape.q_heads),
            static_cast<std::size_t>(part.whole.q_heads)};
  }
  // Their rows of one query, in rows [queries, all, dim].
  template <class T>
  std::span<T> rows(std::span<T> of, std::size_t query, std::size_t dim) const {
    return of.subspan((query * all + first) * dim, heads * dim);
  }
};

// The slot in a request's sequence is the cluster's. `positions` is that of its layer.
inline void put_request(message& m, const attend_request& r, const query_heads& mine,
                        std::size_t k_dim, std::uint64_t positions) {
  const std::size_t queries = r.q.size() / (mine.all * k_dim);
  m.put(request_line{.slot = r.seq.slot,
                     .queries = static_cast<std::uint32_t>(queries),
                     .causal = r.causal ? 1u : 0u,
                     .wants_log_sum_exp = r.log_sum_exp.empty() ? 0u : 1u,
                     .positions = positions,
                     .index_values = r.index.queries.size(),
                     .index_weights = r.index.weights.size()});
  auto to = m.room<float>(queries * mine.heads * k_dim).begin();
  for (std::size_t i = 0; i < queries; ++i) {
    const auto row = mine.rows(r.q, i, k_dim);
    to = std::copy(row.begin(), row.end(), to);
  }
  m.put_all(r.index.queries);
  m.put_all(r.index.weights);
}

// Zeros and -inf: the results over no tokens, into which those of drives are merged.
inline void clear_results(std::span<float> out, std::span<float> log_sum_exp) {
  std::fill(out.begin(), out.end(), 0.0f);
  std::fill(log_sum_exp.begin(), log_sum_exp.end(), -std::numeric_limits<float>::infinity());
}

// The results of a request from one drive, in the order in which it was sent. Copies them to the
// drive's heads, or merges them if other drives have tokens of the same heads. log_sum_exp is then
// never empty.
template <bool Merges>
void take_results(message& m, const query_heads& mine, std::size_t v_dim, std::span<float> out,
                  std::span<float> log_sum_exp) {
  const std::size_t queries = out.size() / (mine.all * v_dim);
  const std::span<const float> values = m.take<float>(queries * mine.heads * v_dim);
  const std::span<const float> sums =
      log_sum_exp.empty() ? std::span<const float>{} : m.take<float>(queries * mine.heads);
  for (std::size_t i = 0; i < queries; ++i) {
    const auto from = values.subspan(i * mine.heads * v_dim, mine.heads * v_dim);
    const auto to = mine.rows(out, i, v_dim);
    if (sums.empty()) {
      std::copy(from.begin(), from.end(), to.begin());
      continue;
    }
    const auto sums_from = sums.subspan(i * mine.heads, mine.heads);
    const auto sums_to = mine.rows(log_sum_exp, i, 1);
    if constexpr (Merges) {
      merge_attention(to, sums_to, from, sums_from);
    } else {
      std::copy(from.begin(), from.end(), to.begin());
      std::copy(sums_from.begin(), sums_from.end(), sums_to.begin());
    }
  }
}

}  // namespace instinfer::cluster
