#pragma once
// Intersection and difference of sorted index sets; linear in their runs.

#include "instinfer/core/index_set.hpp"

namespace instinfer {

// Adds a ∩ b to `common`.
inline void add_intersection(index_view a, index_view b, index_set& common) {
  auto in_a = a.runs().begin();
  auto in_b = b.runs().begin();
  while (in_a != a.runs().end() && in_b != b.runs().end()) {
    common.add(std::max(in_a->first, in_b->first), std::min(in_a->last, in_b->last));
    ++(in_a->last < in_b->last ? in_a : in_b);
  }
}

// Adds a \ b to `rest`.
inline void add_difference(index_view a, index_view b, index_set& rest) {
  auto in_b = b.runs().begin();
  for (const index_run run : a.runs()) {
    std::uint32_t first = run.first;
    while (in_b != b.runs().end() && in_b->first < run.last) {
      rest.add(first, in_b->first);
      first = std::max(first, in_b->last);
      if (in_b->last > run.last) {
        break;  // it reaches into the next run of a
      }
      ++in_b;
    }
    rest.add(first, run.last);
  }
}

}  // namespace instinfer
