#pragma once
// Dense attention: exact softmax attention over every visible token.

#include "instinfer/attention/concepts.hpp"

namespace instinfer::attention {

struct dense {
  using summaries = summary_list<>;
  static constexpr bool folds_all_visible = true;

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    m.fold(q, m.all_tokens(q));
  }
};

}  // namespace instinfer::attention
