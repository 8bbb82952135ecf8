#pragma once
// The attention machine of one KV head's query group. It plans every operation once, tells an observer, and hands the
// plan to a path's arithmetic; so all paths choose, read and charge by the same code.

#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/attention/concepts.hpp"
#include "instinfer/attention/planning.hpp"
#include "instinfer/core/logit_rule.hpp"

namespace instinfer::attention {

enum class operation : std::uint8_t { all_tokens, top_dims, score_dims, top_tokens, fold };

// The queries of one KV head's group.
struct query_group {
  std::span<const float> values;  // [group, k_dim]
  std::uint32_t group = 1;
  logit_rule logits;

  std::span<const float> head(std::uint32_t h) const {
    const std::size_t k_dim = values.size() / group;
    return values.subspan(h * k_dim, k_dim);
  }
};

// Watches a machine at work. chose() sees every selection, accessed() every plan, before it is carried out.
template <class O>
concept Observer = requires(O& o, operation op, index_view chosen, const access_plan& plan) {
  o.chose(op, chosen);
  o.accessed(op, plan);
};

struct no_observer {
  void chose(operation, index_view) {}
  void accessed(operation, const access_plan&) {}
};

// Selections and the plan of one attend on one worker. Keeps its memory between calls. Views of a
// selection stay valid while others are added: a set that moves keeps its runs where they are.
struct machine_scratch {
  access_plan plan;
  std::vector<index_set> selections;
  std::size_t used = 0;

  index_set& next_selection() {
    if (used == selections.size()) {
      selections.emplace_back();
    }
    selections[used].clear();
    return selections[used++];
  }
};

// A path's arithmetic: what an operation computes from the pages that its plan names. `A::scores` is the path's own
// score array. Every path defines one such class template over the KV format; reads(page_read) gives it the page.
//   begin(q, head)                       new query: empties the state
//   top_dims(q, r, out)                  choose
//   score_dims(q, dims, tokens, plan)    -> scores over `tokens`, read as planned
//   top_tokens(scores, k, local, out)    choose
//   fold(q, tokens, plan)                merge into the state
//   blend_mean(scores, tokens, mean)     note the blend
//   finish(out)                          out: [group, v_dim]
template <class Arithmetic, class Pages, class Summaries, Observer Watch>
class machine {
 public:
  using query = query_group;
  using dims = index_view;
  using tokens = index_view;
  using scores = typename Arithmetic::scores;

  machine(Arithmetic& arithmetic, const layout::head_pages& head, const Pages& pages,
          const Summaries& summaries, machine_scratch& scratch, traffic& moved, Watch& watch)
      : arithmetic_{arithmetic},
        head_{head},
        pages_{pages},
        summaries_{summaries},
        scratch_{scratch},
        moved_{moved},
        watch_{watch} {
    scratch_.used = 0;
  }

  tokens all_tokens(const query& q) {
    index_set& set = scratch_.next_selection();
    q.logits.visible(head_.first, head_.tokens, set);
    watch_.chose(operation::all_tokens, set);
    return set;
  }

  dims top_dims(const query& q, budget keep) {
    const auto k_dim = static_cast<std::uint32_t>(q.values.size() / q.group);
    index_set& set = scratch_.next_selection();
    arithmetic_.top_dims(q, keep.of(k_dim, "keep_dims"), set);
    watch_.chose(operation::top_dims, set);
    return set;
  }

  scores score_dims(const query& q, dims chosen) {
    const tokens visible = all_tokens(q);
    plan_score_dims(head_, visible, chosen, scratch_.plan);
    account(operation::score_dims);
    return arithmetic_.score_dims(q, chosen, visible, scratch_.plan, head_, pages_);
  }

  tokens top_tokens(const scores& s, budget keep, budget local) {
    const std::uint32_t k = keep.of(s.tokens.count(), "keep_tokens");
    index_set& set = scratch_.next_selection();
    arithmetic_.top_tokens(s, k, local.of(k, "local"), set);
    watch_.chose(operation::top_tokens, set);
    return set;
  }

  void fold(const query& q, tokens chosen) {
    plan_fold(head_, chosen, scratch_.plan);
    account(operation::fold);
    arithmetic_.fold(q, scratch_.plan, head_, pages_);
  }

  // Skipped where the mask hides live tokens: the mean is that of all live V, and hidden values must not leak.
  void blend_mean(const scores& s, tokens chosen) {
    using mean = typename mean_value::template state<typename Arithmetic::format::decoded>;
    static_assert(
        keeps<mean, Summaries>,
        "instinfer: blend_mean needs mean_value among the policy's summaries, see attention/summaries.hpp");
    if constexpr (keeps<mean, Summaries>) {
      if (s.tokens.count() == head_.tokens - head_.first) {
        arithmetic_.blend_mean(s, chosen, std::get<mean>(summaries_));
      }
    }
  }

 private:
  void account(operation op) {
    moved_ += scratch_.plan.bytes(head_.page_bytes, head_.entry);
    watch_.accessed(op, scratch_.plan);
  }

  Arithmetic& arithmetic_;
  const layout::head_pages& head_;
  const Pages& pages_;
  const Summaries& summaries_;
  machine_scratch& scratch_;
  traffic& moved_;
  Watch& watch_;
};

}  // namespace instinfer::attention
