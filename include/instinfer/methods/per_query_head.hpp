#pragma once
// Wrapper: each query head of a group runs the policy alone, with its own selections.

#include "instinfer/attention/concepts.hpp"

namespace instinfer::attention {

// This is what papers on multi-head attention measure. In a model with groups, a page that several
// heads want is read once for each. Do not use it with policies that feed weights back to a
// summary.
template <class Policy>
struct per_query_head : Policy {
  static constexpr bool shares_selection = false;
};

}  // namespace instinfer::attention
