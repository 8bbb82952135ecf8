#pragma once
// The part of a machine that needs no arithmetic: selections by position, by set algebra, and by
// the contents of summaries.

#include <type_traits>
#include <utility>

#include "instinfer/attention/machine_scratch.hpp"
#include "instinfer/attention/observer.hpp"
#include "instinfer/attention/query_group.hpp"
#include "instinfer/core/budget.hpp"
#include "instinfer/core/index_algebra.hpp"
#include "instinfer/layout/head_pages.hpp"
#include "instinfer/summaries/chunks.hpp"
#include "instinfer/summaries/concepts.hpp"

namespace instinfer::attention {

// Operations: see attention/concepts.hpp. Sets are valid in the scratch until the next query.
template <class Format, class Summaries, Observer Watch>
class selector {
 public:
  using query = query_group;
  using dims = index_view;
  using tokens = index_view;
  using chunks = index_view;

  selector(const layout::head_pages& head, Summaries& summaries, machine_scratch& scratch,
           Watch& watch)
      : head_{head}, scratch_{scratch}, watch_{watch}, summaries_{summaries} {
    scratch_.begin();
  }

  // A set that a summary stores, in the form that operations take.
  tokens view(index_view set) const { return set; }

  // The tokens of a run.
  tokens run(index_run of) {
    index_set& set = scratch_.next_selection();
    set.add(of.first, of.last);
    return set;
  }

  tokens all_tokens(const query& q) {
    index_set& set = scratch_.next_selection();
    q.visible(head_.first, head_.tokens, set);
    watch_.chose(operation::all_tokens, set);
    return set;
  }

  tokens steady(const query& q, std::uint32_t sinks, budget window) {
    const tokens visible = all_tokens(q);
    index_set& set = scratch_.next_selection();
    add_ends(visible, sinks, window.of(visible.count(), "window"), set);
    watch_.chose(operation::choose_tokens, set);
    return set;
  }

  tokens unite(index_view a, index_view b) { return algebra(add_union, a, b); }
  tokens intersect(index_view a, index_view b) { return algebra(add_intersection, a, b); }
  tokens subtract(index_view a, index_view b) { return algebra(add_difference, a, b); }

  template <class S>
  chunks all_chunks() {
    const auto& table = chunk_table<S>();
    index_set& set = scratch_.next_selection();
    set.add(first_chunk_of(table), table.chunks());
    return set;
  }

  template <class S>
  chunks chunks_of(tokens of) {
    const auto& table = chunk_table<S>();
    index_set& set = scratch_.next_selection();
    auto run = of.runs().begin();
    for (std::uint32_t u = first_chunk_of(table); u < table.chunks() && run != of.runs().end();
         ++u) {
      const index_run members = table.members(u);
      while (run != of.runs().end() && run->last <= members.first) {
        ++run;
      }
      if (run != of.runs().end() && run->first < members.last) {
        set.add(u);
      }
    }
    return set;
  }

  template <class S>
  tokens members(chunks chosen) {
    const auto& table = chunk_table<S>();
    index_set& set = scratch_.next_selection();
    chosen.for_each(
        [&](std::uint32_t u) { set.add(table.members(u).first, table.members(u).last); });
    watch_.chose(operation::choose_tokens, set);
    return set;
  }

  // The index heads: those of the query's own index, or else those of the group.
  chunks index_heads(const query& q) {
    index_set& set = scratch_.next_selection();
    set.add(0, q.index_heads());
    return set;
  }

  template <class S>
  auto& summary() {
    using state = typename S::template state<typename Format::decoded>;
    static_assert(
        keeps<state, Summaries>,
        "instinfer: the operation needs a summary that is not among the policy's summaries, see summaries/concepts.hpp");
    return std::get<state>(summaries_);
  }

 protected:
  template <class S>
  const auto& chunk_table() {
    using state = typename S::template state<typename Format::decoded>;
    static_assert(ChunkState<state>,
                  "instinfer: the summary has no chunks with rows, see summaries/chunks.hpp");
    return std::as_const(summary<S>());
  }

 private:
  template <class F>
  index_view algebra(F&& f, index_view a, index_view b) {
    index_set& set = scratch_.next_selection();
    f(a, b, set);
    return set;
  }

 protected:
  const layout::head_pages& head_;
  machine_scratch& scratch_;
  Watch& watch_;
  Summaries& summaries_;  // std::tuple of states
};

}  // namespace instinfer::attention
