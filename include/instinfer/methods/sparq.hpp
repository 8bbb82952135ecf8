#pragma once
// SparQ attention (Ribar et al., ICML 2024): the selection that SparF brings to flash, with its local window.

#include "instinfer/attention/concepts.hpp"
#include "instinfer/summaries/mean_value.hpp"

namespace instinfer::attention {

// What differs from SparF: the group ranks tokens by the sum of its heads' logits, and a quarter of the kept tokens are always
// the newest (customary l = k/4).
struct sparq {
  budget keep_dims = 1.0 / 8;     // r, of head_dim
  budget keep_tokens = 1.0 / 16;  // k, of the visible tokens
  budget local = 1.0 / 4;         // l, of the kept ones
  bool blend = true;              // some models with grouped queries do better without

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
