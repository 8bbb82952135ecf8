#pragma once
// StreamingLLM (Xiao et al., ICLR 2024): the first few tokens, the attention sinks, and a window of the newest. What lies
// between is gone.

#include "instinfer/attention/concepts.hpp"

namespace instinfer::attention {

// The method numbers positions inside what it keeps, so that a stream may go on for ever. Keys here are stored as rotated at
// their own positions; inside the window distances are right as they are, and sinks are met by queries moved back over the
// gap. Without a rotation given, positions stay the true ones.
struct streaming_llm {
  std::uint32_t sinks = 4;
  budget window = budget::at_most(1020);  // newest tokens: a count, or a share of the visible ones
  rope rotation{};                        // the model's; none: sinks keep their true distance
  residence from = residence::fast;       // the method's cache is all that there is

  using summaries = summary_list<>;
  static constexpr bool own_window =
      true;  // what a mask hid in between would be missing from the gap

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
