#pragma once
// The part of a call's arguments that goes to one drive, and of its results that come from it.

#include <algorithm>
#include <span>

#include "instinfer/cluster/commands.hpp"
#include "instinfer/cluster/message.hpp"
#include "instinfer/cluster/splits.hpp"
#include "instinfer/engine/attend_request.hpp"

namespace instinfer::cluster {

// The tokens that a drive has, of `count` tokens from position `first` on.
template <class S>
struct token_slice {
  const S& split;
  const drive_part& part;
  std::uint64_t first = 0;
  std::uint64_t count = 0;

  std::uint64_t position(std::uint64_t p) const {  // of token p, among the drive's own
    return split.tokens_of(p, part.drive, part.drives);
  }
  std::uint64_t tokens_of(std::uint64_t n) const { return position(first + n); }
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

inline void put_queries(message& m, std::span<const float> q, const query_heads& mine,
                        std::size_t k_dim) {
  const std::size_t queries = q.size() / (mine.all * k_dim);
  auto to = m.room<float>(queries * mine.heads * k_dim).begin();
  for (std::size_t i = 0; i < queries; ++i) {
    const auto row = mine.rows(q, i, k_dim);
    to = std::copy(row.begin(), row.end(), to);
  }
}

// The slot in a request's sequence is the cluster's. `first_query` is that of the request in its
// batch, `live` are the live tokens of its layer.
template <class S>
void put_request(message& m, const attend_request& r, std::uint64_t first_query,
                 const query_heads& mine, std::size_t k_dim, const token_slice<S>& live) {
  const std::size_t queries = r.q.size() / (mine.all * k_dim);
  const std::uint64_t bias_tokens = r.bias.empty() ? 0 : live.size();
  const auto runs = r.visible == nullptr ? std::span<const index_run>{} : r.visible->view().runs();
  m.put(request_line{.slot = r.seq.slot,
                     .queries = static_cast<std::uint32_t>(queries),
                     .causal = r.causal ? 1u : 0u,
                     .wants_log_sum_exp = r.log_sum_exp.empty() ? 0u : 1u,
                     .first_query = first_query,
                     .positions = live.first + live.count,
                     .index_values = r.index.queries.size(),
                     .index_weights = r.index.weights.size(),
                     .bias_tokens = bias_tokens,
                     .has_visible = r.visible == nullptr ? 0u : 1u,
                     .visible_runs = static_cast<std::uint32_t>(runs.size())});
  put_queries(m, r.q, mine, k_dim);
  m.put_all(r.index.queries);
  m.put_all(r.index.weights);
  if (bias_tokens > 0) {
    auto bias = m.room<float>(queries * mine.heads * bias_tokens).begin();
    for (std::size_t i = 0; i < queries * mine.heads; ++i) {
      const auto rows = mine.rows(r.bias, i / mine.heads, live.count);
      const auto row = rows.subspan(i % mine.heads * live.count, live.count);
      live.for_each([&](std::size_t t) { *bias++ = row[t]; });
    }
  }
  auto run = m.room<index_run>(runs.size()).begin();
  for (const index_run& all : runs) {
    *run++ = {static_cast<std::uint32_t>(live.position(all.first)),
              static_cast<std::uint32_t>(live.position(all.last))};
  }
}

// The results of a request from the drive that has its tokens, in the order in which it was sent.
inline void take_results(message& m, const query_heads& mine, std::size_t v_dim,
                         std::span<float> out, std::span<float> log_sum_exp) {
  const std::size_t queries = out.size() / (mine.all * v_dim);
  const auto copy_rows = [&](std::span<float> to, std::size_t width) {
    const auto values = m.take<float>(queries * mine.heads * width);
    for (std::size_t i = 0; i < queries; ++i) {
      const auto from = values.subspan(i * mine.heads * width, mine.heads * width);
      std::copy(from.begin(), from.end(), mine.rows(to, i, width).begin());
    }
  };
  copy_rows(out, v_dim);
  if (!log_sum_exp.empty()) {
    copy_rows(log_sum_exp, 1);
  }
}

// The same from rows [queries, heads of the drive, v_dim + 1] of outputs with their log_sum_exp.
inline void take_rows(std::span<const float> rows, const query_heads& mine, std::size_t v_dim,
                      std::span<float> out, std::span<float> log_sum_exp) {
  const std::size_t queries = out.size() / (mine.all * v_dim);
  auto row = rows.begin();
  for (std::size_t i = 0; i < queries; ++i) {
    for (std::size_t h = 0; h < mine.heads; ++h) {
      std::copy_n(row, v_dim, mine.rows(out, i, v_dim).subspan(h * v_dim).begin());
      row += static_cast<std::ptrdiff_t>(v_dim);
      if (!log_sum_exp.empty()) {
        mine.rows(log_sum_exp, i, 1)[h] = *row;
      }
      ++row;
    }
  }
}

}  // namespace instinfer::cluster
