#pragma once
// H2O, heavy-hitter oracle (Zhang et al., NeurIPS 2023): a fixed cache of the newest tokens and of those that have drawn the
// most attention.

#include <string>

#include "instinfer/attention/concepts.hpp"
#include "instinfer/summaries/heavy_hitters.hpp"

namespace instinfer::attention {

// Each query adds its weights, over what is still kept, to the tokens' sums; what exceeds the cache is then dropped for good.
// Weights count from the first query that is attended: a prompt is judged by the queries replayed over it.
struct h2o {
  std::uint32_t heavy = 512;
  std::uint32_t recent = 512;
  residence from = residence::
      fast;  // the cache lies in fast memory; residence::flash: kept tokens are read from the drive

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
