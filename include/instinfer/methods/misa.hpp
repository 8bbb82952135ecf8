#pragma once
// MISA, a mixture of indexer heads (2026): DSA that scans all tokens with only a few index heads,
// chosen per query.

#include "instinfer/attention/concepts.hpp"
#include "instinfer/summaries/index_keys.hpp"

namespace instinfer::attention {

// Saves arithmetic, not bytes: every index key is still read. With `candidates`, all heads score
// that many tokens a second time, and the best of them are kept.
template <int IndexDims = 128, std::uint32_t BlockTokens = 1024>
struct basic_misa {
  budget keep_tokens = budget::at_most(2048);
  budget active_heads = budget::at_most(8);
  budget candidates = budget::at_most(0);  // 8192 for the two-stage variant
  head_router router = head_router::block_means;

  using index = index_keys<IndexDims, BlockTokens>;
  using summaries = summary_list<index>;

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto visible = m.all_tokens(q);
    const auto heads =
        m.template top_heads<index>(q, active_heads.positive("active_heads"), router);
    auto scores = m.template score_index<index>(q, heads, visible);
    if (candidates.of(visible.count(), "candidates") > 0) {
      const auto best = m.top_tokens(scores, candidates);
      scores = m.template score_index<index>(q, m.index_heads(q), best);
    }
    m.fold(q, m.top_tokens(scores, keep_tokens.positive("keep_tokens")));
  }
};

using misa = basic_misa<>;

}  // namespace instinfer::attention
