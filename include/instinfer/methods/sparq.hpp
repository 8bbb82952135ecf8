#pragma once
// SparQ attention (Ribar et al., ICML 2024): the selection on which SparF builds, with a local
// window.

#include "instinfer/attention/concepts.hpp"
#include "instinfer/summaries/mean_value.hpp"

namespace instinfer::attention {

// Differences from SparF: the group ranks tokens by the sum of its heads' logits, and the newest
// tokens are always a quarter of the kept ones (the usual l = k/4).
struct sparq {
  budget keep_dims = 1.0 / 8;     // r, share of head_dim
  budget keep_tokens = 1.0 / 16;  // k, share of the visible tokens
  budget local = 1.0 / 4;         // l, share of the kept tokens
  bool blend = true;              // some models with grouped queries are more accurate without it

  using summaries = summary_list<mean_value>;

  static constexpr sparq at_compression(double compression) {
    return {.keep_dims = 1.0 / compression, .keep_tokens = 0.5 / compression};
  }

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto logits = m.score_dims(q, m.top_dims(q, keep_dims));
    const auto tokens = m.top_tokens(logits, keep_tokens, local);
    m.fold(q, tokens);
    if (blend) {
      m.blend_mean(m.softmax(logits), tokens);
    }
  }
};

}  // namespace instinfer::attention
