#pragma once
// SparF, the flash-aware sparse attention of InstInfer (§IV-B, Alg. 1). The formulas of its
// operations are in reference/path.hpp.

#include "instinfer/attention/concepts.hpp"
#include "instinfer/attention/scores.hpp"
#include "instinfer/summaries/mean_value.hpp"

namespace instinfer::attention {

// The query's largest dims score all tokens from the dim-indexed copy of K. The best tokens are
// folded exactly from the token-indexed copies. The mean of V stands for the other tokens. Pages
// without a wanted entry are not read (page filter). From the other pages, only wanted entries pass
// the flash channel controller (entry filter). Both filters follow from the plan of each operation,
// so the program contains only the algorithm.
//
// The paper has one query head a KV head. The heads of a group share both choices, for which the
// settings from `local` on exist: docs/methods.md and docs/accuracy.md measure them.
struct sparf {
  budget keep_dims = 1.0 / 8;     // r of Alg. 1, share of head_dim
  budget keep_tokens = 1.0 / 16;  // k of Alg. 1, share of the visible tokens
  budget local = 0.0;             // share of the kept tokens that is always the newest
  group_reduction dims_over = group_reduction::sum;    // of the heads' |q|
  group_reduction tokens_over = group_reduction::sum;  // of what ranks tokens; the mean ranks alike
  bool rank_logits = false;        // tokens by logits, as SparQ; false: by probabilities
  bool blend = true;               // the mean of V stands for the other tokens; false: nothing does
  std::uint32_t dense_layers = 0;  // the first layers, if the model has more than these

  using summaries = summary_list<mean_value>;

  // The setting with 1/compression of the K and V traffic of dense: r = d / c and k = S / 2c,
  // because (S r + 2 k d) / (2 S d) = 1/c.
  static constexpr sparf at_compression(double compression) {
    return {.keep_dims = 1.0 / compression, .keep_tokens = 0.5 / compression};
  }
  // The same with Alg. 1 as it stands, whatever the defaults are: no local tokens, sums, blend.
  static constexpr sparf as_published(double compression = 8.0) {
    const sparf s = at_compression(compression);
    return {.keep_dims = s.keep_dims,
            .keep_tokens = s.keep_tokens,
            .local = 0.0,
            .dims_over = group_reduction::sum,
            .tokens_over = group_reduction::sum,
            .rank_logits = false,
            .blend = true,
            .dense_layers = 0};
  }
  // For query heads that share a KV head, at the same bytes: the newest tokens are a quarter of the
  // kept ones, as the dims that suit a whole group find them badly, and a quarter of the bytes for
  // dims goes to tokens. The first layer, whose weights are flat, is dense where all of its bytes
  // are at most half of those of all `layers`.
  static constexpr sparf for_groups(double compression = 8.0, std::uint32_t layers = 1) {
    const double of_all = layers / compression;  // in units of one dense layer
    const bool dense = of_all >= 2.0 && compression > 1.0;
    const double share = dense ? (of_all - 1.0) / (layers - 1.0) : 1.0 / compression;
    return {.keep_dims = 0.75 * share,
            .keep_tokens = 0.625 * share,
            .local = 0.25,
            .dense_layers = dense ? 1u : 0u};
  }

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    if (m.layer() < dense_layers && dense_layers < m.layers()) {
      m.fold(q, m.all_tokens(q));
      return;
    }
    const auto dims = m.top_dims(q, keep_dims, dims_over);  // l. 1
    const auto logits = m.score_dims(q, dims);              // l. 2-7
    const auto approx = m.softmax(logits);                  // l. 8
    const auto tokens =
        m.top_tokens(rank_logits ? logits : approx, keep_tokens, local, tokens_over);  // l. 10
    m.fold(q, tokens);                                                                 // l. 12-18
    if (blend) {
      m.blend_mean(approx, tokens);  // l. 11, 19
    }
  }
};

}  // namespace instinfer::attention
