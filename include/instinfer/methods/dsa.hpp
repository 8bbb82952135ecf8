#pragma once
// DSA, DeepSeek sparse attention (DeepSeek-V3.2, 2025): a small trained indexer scores every token,
// and attention reads the tokens with the highest scores.

#include "instinfer/attention/concepts.hpp"
#include "instinfer/summaries/index_keys.hpp"

namespace instinfer::attention {

// A token's score is the sum over index heads of w relu(q_I . k_I). Index queries and weights come
// with the query, index keys with the token. For a model without an indexer, the group's own
// queries and keys replace them. All query heads share one selection.
template <int IndexDims = 128>
struct basic_dsa {
  budget keep_tokens = budget::at_most(2048);

  using index = index_keys<IndexDims>;
  using summaries = summary_list<index>;

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto scores = m.template score_index<index>(q, m.index_heads(q), m.all_tokens(q));
    m.fold(q, m.top_tokens(scores, keep_tokens.positive("keep_tokens")));
  }
};

using dsa = basic_dsa<>;

}  // namespace instinfer::attention
