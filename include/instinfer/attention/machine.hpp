#pragma once
// The attention machine of one KV head's query group.
// It plans every operation once, tells an observer, and passes the plan to a path's arithmetic. So
// all paths choose, read and charge with the same code.

#include <cstdint>
#include <span>
#include <utility>

#include "instinfer/attention/concepts.hpp"
#include "instinfer/attention/planning.hpp"
#include "instinfer/attention/rope.hpp"
#include "instinfer/attention/selector.hpp"
#include "instinfer/layout/page_reader.hpp"
#include "instinfer/summaries/mean_value.hpp"

namespace instinfer::attention {

// Whether blend_mean applies to a query that sees `visible` tokens of a head. The mean is that of
// all live V. Where the mask hides live tokens, it does not apply: hidden values must not leak.
inline bool mean_applies(const layout::head_pages& head, std::uint32_t visible) {
  return visible == head.tokens - head.first;
}

// A path's arithmetic: what an operation computes from the pages that its plan names. Every path
// defines one such class template over the KV format; reads(page_read) gives it the page.
// `A::scores` is a score_array (attention/scores.hpp), or the path's own type if it has no values.
// An operation that a path lacks fails to compile if a policy uses it; the error shows its name.
//   begin(q, head)                        new query: empties the state
//   top_dims(q, over, r, out)             choose
//   top(scores, over, k, newest, out)     choose: candidates by rank
//   rank(scores, over)                    [candidates] of values, for choices by threshold
//   score_dims(q, dims, tokens, plan)     -> logits over `tokens`, read as planned
//   score_tokens(q, tokens, plan)         -> logits
//   score_rows(q, chunks, table)          -> logits against the rows of a summary
//   softmax(logits, weight_of)            -> probabilities; candidate c counts weight_of(c) times
//   weights(logits)                       -> probabilities within the state
//   fold(q, plan)                         merge into the state of q's heads; q may be a part of the
//                                         query that begin() was given
//   work_with(team)                       optional: later operations may use the team's workers
//   fold_scored(logits, tokens, plan)     merge V rows with known logits
//   fold_rows(logits, chunks, table)      merge mean values
//   keep_mass(p, tokens)                  store alpha
//   blend_mean(p, tokens, mean)           store alpha and the mean
//   finish(out, log_sum_exp)              [group, v_dim]; [group], or empty if not asked for
template <class Arithmetic, class Summaries>
class machine : public selector<typename Arithmetic::format, Summaries, observer_ref> {
  using base = selector<typename Arithmetic::format, Summaries, observer_ref>;
  using base::head_;
  using base::scratch_;
  using base::summaries_;
  using base::watch_;

 public:
  using typename base::chunks;
  using typename base::dims;
  using typename base::query;
  using typename base::tokens;
  using scores = typename Arithmetic::scores;
  using format = typename Arithmetic::format;

  machine(Arithmetic& arithmetic, const layout::head_pages& head,
          const layout::page_reader<format>& pages, Summaries& summaries, machine_scratch& scratch,
          traffic& moved, observer_ref& watch, std::uint32_t layer = 0, std::uint32_t layers = 1)
      : base{head, summaries, scratch, watch},
        arithmetic_{arithmetic},
        pages_{pages},
        moved_{moved},
        layer_{layer},
        layers_{layers} {}

  std::uint32_t layer() const { return layer_; }
  std::uint32_t layers() const { return layers_; }

  // The queries rotated to `back` positions earlier. Keys were rotated at their own positions, so
  // every distance to them becomes smaller by `back`.
  query moved_back(const query& q, std::uint32_t back, const rope& rotation) {
    if (back == 0 || !rotation.present()) {
      return q;
    }
    std::vector<float>& values = scratch_.next_query();
    values.assign(q.values.begin(), q.values.end());
    const std::size_t k_dim = values.size() / q.group;
    for (std::uint32_t h = 0; h < q.group; ++h) {
      rotation.rotate(std::span(values).subspan(h * k_dim, q.dims()),
                      -static_cast<std::int64_t>(back));
    }
    query moved = q;
    moved.values = values;
    return moved;
  }

  dims top_dims(const query& q, budget keep, group_reduction over = group_reduction::sum) {
    index_set& set = scratch_.next_selection();
    arithmetic_.top_dims(q, over, keep.of(q.dims(), "keep_dims"), set);
    watch_.chose(operation::top_dims, set);
    return set;
  }

  tokens top_tokens(const scores& s, budget keep, budget newest = 0.0,
                    group_reduction over = group_reduction::sum) {
    return top(operation::top_tokens, s, keep, "keep_tokens", newest, over);
  }
  chunks top_chunks(const scores& s, budget keep, budget newest = 0.0,
                    group_reduction over = group_reduction::sum) {
    return top(operation::top_chunks, s, keep, "keep_chunks", newest, over);
  }
  chunks chunks_above(const scores& s, double threshold,
                      group_reduction over = group_reduction::sum) {
    index_set& set = scratch_.next_selection();
    above(s, arithmetic_.rank(s, over), threshold, set);
    watch_.chose(operation::top_chunks, set);
    return set;
  }

  scores score_dims(const query& q, dims chosen) {
    const tokens visible = this->all_tokens(q);
    plan_score_dims(head_, visible, chosen, scratch_.plan);
    account(operation::score_dims);
    return arithmetic_.score_dims(q, chosen, visible, scratch_.plan, head_, pages_);
  }

  scores score_tokens(const query& q, tokens chosen, residence from = residence::flash) {
    plan_rows(head_, keys_by_row(head_), chosen, scratch_.plan, from);
    account(operation::score_tokens);
    return arithmetic_.score_tokens(q, chosen, scratch_.plan, head_, pages_);
  }

  template <class S>
  scores score_chunks(const query& q, chunks chosen) {
    const auto& table = this->template chunk_table<S>();
    scored(chosen.count(), table.row_dim, table.row_bytes, q.group);
    return arithmetic_.score_rows(q, chosen, table);
  }

  template <class S>
  chunks top_heads(const query& q, budget keep, head_router router) {
    const auto& index = this->template summary<S>();
    const std::uint32_t heads = q.index_heads();
    index_set& set = scratch_.next_selection();
    const std::uint32_t rows = index.top_heads(q.index_of_dims(S::index_dims), router,
                                               keep.of(heads, "active_heads"), set);
    scored(rows, S::index_dims, S::index_dims * sizeof(float), heads);
    watch_.chose(operation::top_chunks, set);
    return set;
  }

  template <class S>
  scores score_index(const query& q, chunks heads, tokens chosen) {
    const auto& index = this->template summary<S>();
    scored(chosen.count(), S::index_dims, index.key_bytes, heads.count());
    return arithmetic_.score_index(q.index_of_dims(S::index_dims), heads, chosen, index);
  }

  scores softmax(const scores& logits) { return arithmetic_.softmax(logits, one_each{}); }
  template <class S>
  scores softmax(const scores& logits) {
    const auto& table = this->template chunk_table<S>();
    return arithmetic_.softmax(logits, [&](std::uint32_t u) { return table.weight(u); });
  }

  void fold(const query& q, tokens chosen, residence from = residence::flash) {
    fold_where(q, chosen, all_from{from});
  }

  template <class S>
  void fold_through(const query& q, tokens chosen) {
    auto& cache = this->template summary<S>();
    const std::uint32_t tile = head_.tiles.of(keys_by_row(head_)).tokens;
    cache.begin(tile);
    fold_where(q, chosen, [&](std::uint32_t first) { return cache.fetch(first / tile); });
    cache.settle();
  }

  void fold_scored(const scores& logits, tokens chosen, residence from = residence::flash) {
    plan_rows(head_, stream::v_by_token, chosen, scratch_.plan, from);
    account(operation::fold_scored);
    arithmetic_.fold_scored(logits, chosen, scratch_.plan, head_, pages_);
  }

  template <class S>
  void fold_chunks(const scores& logits, chunks chosen) {
    const auto& table = this->template chunk_table<S>();
    static_assert(
        WeightedChunkState<std::remove_cvref_t<decltype(table)>>,
        "instinfer: fold_chunks needs a summary with value_mean(chunk), see summaries/chunks.hpp");
    scored(chosen.count(), format::v_dim, format::v_dim * sizeof(float), 0);
    arithmetic_.fold_rows(logits, chosen, table);
  }

  void blend_mean(const scores& p, tokens chosen) {
    using mean = typename mean_value::template state<typename format::decoded>;
    static_assert(
        keeps<mean, Summaries>,
        "instinfer: blend_mean needs mean_value among the policy's summaries, see summaries/mean_value.hpp");
    if constexpr (keeps<mean, Summaries>) {
      if (mean_applies(head_, p.candidates.count())) {
        arithmetic_.blend_mean(p, chosen, std::get<mean>(summaries_));
      }
    }
  }

  void attenuate(const scores& p, tokens chosen) { arithmetic_.keep_mass(p, chosen); }

  scores weights(const scores& logits) { return arithmetic_.weights(logits); }

 private:
  index_view top(operation op, const scores& s, budget keep, const char* what, budget newest,
                 group_reduction over) {
    const std::uint32_t k = keep.of(s.candidates.count(), what);
    index_set& set = scratch_.next_selection();
    arithmetic_.top(s, over, k, newest.of(k, "newest"), set);
    watch_.chose(op, set);
    return set;
  }

  template <class Where>
  void fold_where(const query& q, tokens chosen, Where&& where) {
    plan_fold(head_, chosen, scratch_.plan, where);
    account(operation::fold);
    arithmetic_.fold(q, scratch_.plan, head_, pages_);
  }

  void account(operation op) {
    moved_ += scratch_.plan.bytes(head_.page_bytes, head_.entry);
    watch_.accessed(op, scratch_.plan);
  }

  // `heads`: number of queries that are multiplied with the rows; 0 if the rows are only summed.
  void scored(std::uint32_t rows, std::size_t row_dim, std::size_t row_bytes, std::uint32_t heads) {
    moved_.summary_bytes += rows * row_bytes;
    watch_.scored(operation::score_chunks, rows, row_dim, heads);
  }

  Arithmetic& arithmetic_;
  const layout::page_reader<format>& pages_;
  traffic& moved_;
  std::uint32_t layer_;
  std::uint32_t layers_;  // of the model
};

}  // namespace instinfer::attention
