#pragma once
// SparF with the choices that grouped queries ask for: how a group ranks its tokens, a share of
// local tokens, and the mean of V on or off.

#include "instinfer/attention/concepts.hpp"
#include "instinfer/summaries/mean_value.hpp"

namespace instinfer::llm {

struct grouped_sparf {
  budget keep_dims = 1.0 / 8;     // share of head_dim
  budget keep_tokens = 1.0 / 16;  // share of the visible tokens
  budget local = 1.0 / 4;         // share of the kept tokens that is always the newest
  bool blend = false;             // the mean of V stands for the other tokens
  bool by_logits = false;         // ranks by approximate logits; otherwise by their softmax
  bool by_maximum = false;        // over the group; otherwise by the sum

  using summaries = attention::summary_list<attention::mean_value>;

  static constexpr grouped_sparf at_compression(double compression) {
    return {.keep_dims = 1.0 / compression, .keep_tokens = 0.5 / compression};
  }

  template <attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto logits = m.score_dims(q, m.top_dims(q, keep_dims));
    const auto weights = m.softmax(logits);
    const auto tokens =
        m.top_tokens(by_logits ? logits : weights, keep_tokens, local,
                     by_maximum ? attention::group_reduction::max : attention::group_reduction::sum);
    m.fold(q, tokens);
    if (blend) {
      m.blend_mean(weights, tokens);
    }
  }
};

}  // namespace instinfer::llm
