#pragma once
// FlexGen's sparse attention (Sheng et al., ICML 2023): exact weights from all of K, and only the V
// rows of the largest weights.

#include "instinfer/attention/concepts.hpp"

namespace instinfer::attention {

// Weights are not renormalised: dropped values count as zeros. The newest token is always kept. It
// saves at most half of the traffic, because all of K is read.
struct top_values {
  budget keep_values = 1.0 / 10;

  using summaries = summary_list<>;

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto logits = m.score_tokens(q, m.all_tokens(q));
    const auto weights = m.softmax(logits);
    const auto kept =
        m.top_tokens(weights, keep_values.positive("keep_values"), budget::at_most(1));
    m.fold_scored(logits, kept);
    m.attenuate(weights, kept);
  }
};

}  // namespace instinfer::attention
