#pragma once
// H2O, heavy-hitter oracle (Zhang et al., NeurIPS 2023): a fixed cache of the newest tokens and of
// the tokens that received the most attention.

#include <string>

#include "instinfer/attention/concepts.hpp"
#include "instinfer/summaries/heavy_hitters.hpp"

namespace instinfer::attention {

// Each query adds its weights over the kept tokens to the sums of these tokens. Tokens that exceed
// the cache are then dropped for good. Sums start with the first attended query, so replay queries
// over a prompt to weigh its tokens.
struct h2o {
  std::uint32_t heavy = 512;
  std::uint32_t recent = 512;
  // fast: the cache is in fast memory. flash: kept tokens are read from the drive.
  residence from = residence::fast;

  using summaries = summary_list<heavy_hitters>;
  static constexpr bool own_window = true;

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    require(heavy > 0 || recent > 0,
            [] { return std::string("h2o: heavy or recent must be positive, both are 0"); });
    auto& past = m.template summary<heavy_hitters>();
    const auto kept = m.view(past.kept());
    const auto logits = m.score_tokens(q, kept, from);
    m.fold_scored(logits, kept, from);
    past.add(m.softmax(logits));
    past.evict(heavy, recent);
  }
};

}  // namespace instinfer::attention
