#pragma once
// HGCA, hybrid attention over two memories (Deng et al., 2025): a dense window in fast memory, and
// the older tokens that received much attention while they were in it.

#include <string>

#include "instinfer/attention/concepts.hpp"
#include "instinfer/summaries/moving_weights.hpp"

namespace instinfer::attention {

// Observed weights are normalised within the window, as in the authors' code, or over all attended
// tokens.
enum class weight_scope : std::uint8_t { local, global };

// The two parts are merged as softmax states; only queries and states cross the link. A token that
// was not salient does not return until all older tokens are judged again. This happens after
// `judge_every` queries, or when tokens left the window before any query saw them, as in a long
// prompt. The judging query attends to all older tokens.
struct hgca {
  std::uint32_t window = 1024;
  std::uint32_t block = 64;  // tokens leave the window in blocks of this size
  salience_rule salience{};
  weight_scope scope = weight_scope::local;
  std::uint32_t judge_every = 0;  // 0: only when necessary

  using summaries = summary_list<moving_weights>;
  static constexpr bool own_window = true;

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    require(window > 0 && block > 0, [&] {
      return "hgca: window and block must be positive, got " + std::to_string(window) + " and " +
             std::to_string(block);
    });
    salience.validate();
    auto& past = m.template summary<moving_weights>();
    past.evict(window, block, salience);
    const auto recent = m.run(past.window());
    const auto logits = m.score_tokens(q, recent, residence::fast);
    m.fold_scored(logits, recent, residence::fast);
    if (past.judgement_due(judge_every)) {
      const auto older = m.run(past.older());
      const auto of_older = m.score_tokens(q, older);
      m.fold_scored(of_older, older);
      past.judge(m.softmax(of_older), salience);
    } else {
      m.fold(q, m.view(past.context()));
    }
    past.observe(scope == weight_scope::local ? m.softmax(logits) : m.weights(logits),
                 recent.count(), salience);
  }
};

}  // namespace instinfer::attention
