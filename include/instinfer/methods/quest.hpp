#pragma once
// Quest (Tang et al., ICML 2024): selects pages by an upper bound of their logits.

#include <algorithm>

#include "instinfer/attention/concepts.hpp"
#include "instinfer/summaries/page_bounds.hpp"

namespace instinfer::attention {

// A page is a group of PageTokens tokens, with the box of its keys. The pages with the largest
// bounds are folded whole. No logit of a skipped page exceeds the bound of that page. The newest
// page is always read; the first layers are dense.
template <std::uint32_t PageTokens = 16>
struct basic_quest {
  budget keep_pages = 1.0 / 8;
  std::uint32_t least_pages = 3;
  std::uint32_t dense_layers = 2;

  using boxes = page_bounds<PageTokens>;
  using summaries = summary_list<boxes>;

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto visible = m.all_tokens(q);
    const auto pages = m.template chunks_of<boxes>(visible);
    const std::uint32_t kept =
        std::max(least_pages, keep_pages.positive("keep_pages").of(pages.count(), "keep_pages"));
    if (m.layer() < dense_layers || kept >= pages.count()) {
      m.fold(q, visible);
      return;
    }
    const auto bounds = m.template score_chunks<boxes>(q, pages);
    const auto best =
        m.top_chunks(bounds, budget::exactly(kept), budget::at_most(1), group_reduction::max);
    m.fold(q, m.intersect(m.template members<boxes>(best), visible));
  }
};

using quest = basic_quest<>;

}  // namespace instinfer::attention
