#pragma once
// Score arrays of one query on the reference path, and the operations on any scores: softmax, rank,
// top-k.

#include <cmath>
#include <limits>
#include <vector>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/attention/scores.hpp"
#include "instinfer/core/top_k.hpp"
#include "instinfer/summaries/chunks.hpp"

namespace instinfer::reference {

class score_pool {
 public:
  using scores = attention::score_array<double>;

  // Logits of the queries against the rows of a summary, for example centroids.
  template <attention::ChunkState Table>
  scores score_rows(const attention::query_group& q, index_view chunks, const Table& table) {
    std::vector<float> prepared(Table::row_dim);
    std::vector<float> buffer(Table::row_dim);
    const double scale = q.logits.scale_for<double>(static_cast<int>(q.values.size() / q.group));
    scores logits = new_scores(chunks, q.group);
    for (std::uint32_t h = 0; h < q.group; ++h) {
      Table::prepare(q.head(h), prepared);
      auto to = logits.head(h).begin();
      chunks.for_each([&](std::uint32_t u) {
        const std::span<const float> row = table.row(u, buffer);
        double product = 0.0;
        for (std::size_t i = 0; i < row.size(); ++i) {
          product += static_cast<double>(prepared[i]) * static_cast<double>(row[i]);
        }
        *to++ = q.logits.capped(product * scale);
      });
    }
    return logits;
  }

  template <class Index>
  scores score_index(const attention::index_query& q, index_view heads, index_view tokens,
                     const Index& index) {
    const scores sums = new_scores(tokens, 1);
    index.score(q, heads, tokens, sums.values);
    return sums;
  }

  // exp(logit) / sum of n exp(logit), with n = weight_of(candidate): how often a candidate counts.
  template <class Weight>
  scores softmax(const scores& logits, Weight&& weight_of) {
    scores p = new_scores(logits.candidates, logits.heads());
    for (std::size_t h = 0; h < logits.heads(); ++h) {
      const std::span<const double> from = logits.head(h);
      const double max = std::ranges::max(from);
      double sum = 0.0;
      std::size_t at = 0;
      logits.candidates.for_each([&](std::uint32_t candidate) {
        p.head(h)[at] = std::exp(from[at] - max);
        sum += weight_of(candidate) * p.head(h)[at++];
      });
      for (double& x : p.head(h)) {
        x /= sum;
      }
    }
    return p;
  }

  std::span<const double> rank(const scores& s, attention::group_reduction over) {
    rank_.assign(s.candidates.count(), 0.0);
    attention::reduce<double>(s, over, rank_);
    return rank_;
  }

  // l. 10: the k candidates with the largest rank; the `newest` last candidates are always among
  // them.
  void top(const scores& s, attention::group_reduction over, std::uint32_t k, std::uint32_t newest,
           index_set& chosen) {
    rank(s, over);
    std::fill(rank_.end() - newest, rank_.end(), std::numeric_limits<double>::infinity());
    index_set positions;
    top_of(rank_, k, positions);
    add_at_positions(s.candidates, positions, chosen);
  }

 protected:
  void begin_scores() { scores_.clear(); }

  // A new score array for `candidates`. It does not move until the next query.
  scores new_scores(index_view candidates, std::size_t heads) {
    auto& values = scores_.emplace_back(heads * candidates.count());
    return {candidates, values};
  }

  // The k largest of x [n].
  void top_of(std::span<const double> x, std::uint32_t k, index_set& chosen) {
    top_k<double>(x, k, chosen, keys_);
  }

 private:
  std::vector<std::vector<double>> scores_;  // one per score operation of this query
  std::vector<double> rank_;                // [candidates]
  std::vector<order_key_t<double>> keys_;
};

}  // namespace instinfer::reference
