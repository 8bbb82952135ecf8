#pragma once
// StreamingLLM (Xiao et al., ICLR 2024): the first few tokens (attention sinks) and a window of the
// newest. The tokens between them are dropped.

#include "instinfer/attention/concepts.hpp"

namespace instinfer::attention {

// The method numbers positions inside its cache, so that a stream can continue forever. Keys here
// are stored as rotated at their original positions. Inside the window these distances are right.
// For the sinks, queries are moved back over the gap. Without a rotation, positions stay the
// original ones.
struct streaming_llm {
  std::uint32_t sinks = 4;
  budget window = budget::at_most(1020);  // newest tokens: a count, or a share of the visible ones
  rope rotation{};                        // the model's; none: sinks keep their true distance
  residence from = residence::fast;       // the method keeps its whole cache in fast memory

  using summaries = summary_list<>;
  // A mask would hide tokens between sinks and window, and the gap would not count them.
  static constexpr bool own_window = true;

  template <AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    const auto visible = m.all_tokens(q);
    const auto kept = m.steady(q, sinks, window.positive("window"));
    const auto recent = m.steady(q, 0, window);
    const auto gap = visible.count() - kept.count();
    m.fold(m.moved_back(q, gap, rotation), m.subtract(kept, recent), from);
    m.fold(q, recent, from);
  }
};

}  // namespace instinfer::attention
