#pragma once
// Score arrays of one query on the CPU path, and the operations on any scores: softmax, rank,
// top-k.

#include <cmath>
#include <vector>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/attention/scores.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/cpu/score/index_score-inl.hpp"
#include "instinfer/cpu/score/row_passes-inl.hpp"
#include "instinfer/cpu/score/score_block-inl.hpp"
#include "instinfer/cpu/score/top_k-inl.hpp"
#include "instinfer/cpu/softmax-inl.hpp"
#include "instinfer/summaries/chunks.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// The part of a worker's arithmetic that needs no pages. It keeps its memory between queries.
class score_pool {
 public:
  using scores = attention::score_array<float>;

  // exp(logit) / sum of n exp(logit), with n = weight_of(candidate): how often a candidate counts.
  template <class Weight>
  scores softmax(const scores& logits, Weight&& weight_of) {
    const scores p = new_scores(logits.candidates, logits.heads());
    for (std::size_t h = 0; h < logits.heads(); ++h) {
      const std::span<float> row = p.head(h);
      const std::span<const float> from = logits.head(h);
      float sum =
          exponentials(from.data(), row.data(), row.size(), max_of(from.data(), row.size()));
      if constexpr (!std::is_same_v<Weight, attention::one_each>) {
        sum = 0.0f;
        auto at = row.begin();
        logits.candidates.for_each(
            [&](std::uint32_t c) { sum += static_cast<float>(weight_of(c)) * *at++; });
      }
      multiply(row.data(), row.size(), 1.0f / sum);
    }
    return p;
  }

  // Logits of the queries against the rows of a summary, for example centroids.
  template <attention::ChunkState Table>
  scores score_rows(const attention::query_group& q, index_view chunks, const Table& table) {
    constexpr std::size_t dims = Table::row_dim;
    static_assert(
        dims % lanes == 0,
        "instinfer: rows of a summary must be a multiple of 16 long, see summaries/chunks.hpp");
    const scores logits = new_scores(chunks, q.group);
    resize_scratch(prepared_, q.group * dims);
    resize_scratch(rows_, score_rows_at_once * dims);
    for (std::uint32_t h = 0; h < q.group; ++h) {
      Table::prepare(q.head(h), std::span(prepared_).subspan(h * dims, dims));
    }
    const auto row_of = [&](std::uint32_t u, std::uint32_t i) {
      if constexpr (requires { table.stored_row(u); }) {
        return table.stored_row(u);
      } else {
        return std::span<const float>(table.row(u, std::span(rows_).subspan(i * dims, dims)))
            .data();
      }
    };
    using row_element = std::remove_cvref_t<decltype(*row_of(0, 0))>;
    score_set<dims, row_element>(
        chunks, prepared_.data(), q.group, [&](std::size_t n) { return logits.values.data() + n; },
        chunks.count(), row_of, [](std::size_t, std::uint32_t) {});
    const float scale = q.logits.scale_for(static_cast<int>(q.values.size() / q.group));
    scale_logits(logits.values.data(), logits.values.size(), scale, q.logits.soft_cap);
    return logits;
  }

  template <class Index>
  scores score_index(const attention::index_query& q, index_view heads, index_view tokens,
                     const Index& index) {
    const scores sums = new_scores(tokens, 1);
    if constexpr (requires { index.key(0u).codes; }) {
      index_scorer_.score(q, heads, tokens, index, sums.values);
    } else {
      index.score(q, heads, tokens, sums.values);
    }
    return sums;
  }

  std::span<const float> rank(const scores& s, attention::group_reduction over) {
    return s.heads() == 1 ? s.head(0) : own_rank(s, over);
  }

  HWY_NOINLINE void top(const scores& s, attention::group_reduction over, std::uint32_t k,
                        std::uint32_t newest, index_set& chosen) {
    const std::span<const float> by = newest > 0 ? own_rank(s, over) : rank(s, over);
    std::fill(rank_.end() - newest, rank_.end(), std::numeric_limits<float>::infinity());
    positions_.clear();
    top_k_of_many(by, k, positions_, top_k_);
    add_at_positions(s.candidates, positions_, chosen);
  }

 protected:
  void begin_scores() { used_ = 0; }

  // A new score array for `candidates`. It does not move until the next query.
  scores new_scores(index_view candidates, std::size_t heads) {
    if (used_ == arrays_.size()) {
      arrays_.emplace_back();
    }
    resize_scratch(arrays_[used_], heads * candidates.count());
    return {candidates, arrays_[used_++]};
  }

  // The r largest of x [n].
  void top_of(std::span<const float> x, std::uint32_t r, index_set& chosen) {
    top_k_of_many(x, r, chosen, top_k_);
  }

 private:
  // The reduced scores of the heads, in an array that may be changed.
  std::span<const float> own_rank(const scores& s, attention::group_reduction over) {
    resize_scratch(rank_, s.candidates.count());
    attention::reduce<float>(s, over, rank_);
    return rank_;
  }

  std::vector<std::vector<float>> arrays_;  // their elements stay where they are when it grows
  std::size_t used_ = 0;
  std::vector<float> rank_;      // [candidates]
  std::vector<float> prepared_;  // [group, row_dim]
  std::vector<float> rows_;      // of a block, decoded [score_rows_at_once, row_dim]
  index_scorer index_scorer_;
  index_set positions_;
  top_k_scratch top_k_;
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
