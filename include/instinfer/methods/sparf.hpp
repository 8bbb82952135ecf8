#pragma once
// SparF, the flash-aware sparse attention of InstInfer (§IV-B, Alg. 1). The formulas of its
// operations are in reference/path.hpp.

#include "instinfer/attention/concepts.hpp"
#include "instinfer/summaries/mean_value.hpp"

namespace instinfer::attention {

// The query's largest dims score all tokens from the dim-indexed copy of K. The best tokens are
// folded exactly from the token-indexed copies. The mean of V stands for the other tokens. Pages
// without a wanted entry are not read (page filter). From the other pages, only wanted entries pass
// the flash channel controller (entry filter). Both filters follow from the plan of each operation,
// so the program contains only the algorithm.
struct sparf {
  budget keep_dims = 1.0 / 8;     // r of Alg. 1, share of head_dim
  budget keep_tokens = 1.0 / 16;  // k of Alg. 1, share of the visible tokens
  budget local = 0.0;             // share of the kept tokens that is always the newest

  using summaries = summary_list<mean_value>;

  // The setting with 1/compression of the K and V traffic of dense: r = d / c and k = S / 2c,
  // because (S r + 2 k d) / (2 S d) = 1/c.
  static constexpr sparf at_compression(double compression) {
    return {.keep_dims = 1.0 / compression, .keep_tokens = 0.5 / compression};
  }

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto dims = m.top_dims(q, keep_dims);                    // l. 1
    const auto approx = m.softmax(m.score_dims(q, dims));          // l. 2-8
    const auto tokens = m.top_tokens(approx, keep_tokens, local);  // l. 10
    m.fold(q, tokens);                                             // l. 12-18
    m.blend_mean(approx, tokens);                                  // l. 11, 19
  }
};

}  // namespace instinfer::attention
