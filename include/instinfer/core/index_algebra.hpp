#pragma once
// Union, intersection, difference and ends of sorted index sets, in time linear in their runs.
// The output set must be empty, and must not be one of the operands.

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
        break;  // the run of b continues into the next run of a
      }
      ++in_b;
    }
    rest.add(first, run.last);
  }
}

// Adds a ∪ b to `all`.
inline void add_union(index_view a, index_view b, index_set& all) {
  auto i = a.runs().begin();
  auto j = b.runs().begin();
  std::uint32_t end = 0;  // of the runs so far
  while (i != a.runs().end() || j != b.runs().end()) {
    const bool from_a = j == b.runs().end() || (i != a.runs().end() && i->first <= j->first);
    const index_run run = from_a ? *i++ : *j++;
    all.add(std::max(run.first, end), run.last);
    end = std::max(end, run.last);
  }
}

// Adds the first `oldest` and the last `newest` indices of a set to `out`.
inline void add_ends(index_view of, std::uint32_t oldest, std::uint32_t newest, index_set& out) {
  const std::uint32_t head = std::min(oldest, of.count());
  const std::uint32_t tail = std::max(head, of.count() - std::min(newest, of.count()));
  std::uint32_t before = 0;  // indices in earlier runs
  for (const index_run run : of.runs()) {
    const auto at = [&](std::uint32_t position) {
      return run.first + std::clamp(position, before, before + run.size()) - before;
    };
    out.add(run.first, at(head));
    out.add(at(tail), run.last);
    before += run.size();
  }
}

}  // namespace instinfer
