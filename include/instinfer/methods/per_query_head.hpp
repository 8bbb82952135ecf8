#pragma once
// Wrapper: the query heads of a group run a policy one by one, each with selections of its own.

#include "instinfer/attention/concepts.hpp"

namespace instinfer::attention {

// What papers on multi-head attention measure, when the model has groups: pages that several heads want are read for each. Not
// for policies that feed weights back to a summary.
template <class Policy>
struct per_query_head : Policy {
  static constexpr bool shares_selection = false;
};

}  // namespace instinfer::attention
