#pragma once
// Union, intersection and difference of index sets, run by run: linear in the runs of both operands. `out` must be empty, and
// neither of them.

#include "instinfer/core/index_set.hpp"

namespace instinfer {

inline void unite(index_view a, index_view b, index_set& out) {
  auto i = a.runs().begin();
  auto j = b.runs().begin();
  while (i != a.runs().end() || j != b.runs().end()) {
    const bool from_a = j == b.runs().end() || (i != a.runs().end() && i->first <= j->first);
    index_run joined = from_a ? *i++ : *j++;
    for (bool grown = true; grown;) {  // by what overlaps or touches it, in turns
      grown = false;
      for (; i != a.runs().end() && i->first <= joined.last; ++i, grown = true) {
        joined.last = std::max(joined.last, i->last);
      }
      for (; j != b.runs().end() && j->first <= joined.last; ++j, grown = true) {
        joined.last = std::max(joined.last, j->last);
      }
    }
    out.add(joined.first, joined.last);
  }
}

inline void intersect(index_view a, index_view b, index_set& out) {
  auto j = b.runs().begin();
  for (const index_run run : a.runs()) {
    for (; j != b.runs().end() && j->first < run.last; ++j) {
      out.add(std::max(run.first, j->first), std::min(run.last, j->last));
      if (j->last > run.last) {
        break;  // it may reach the next run, too
      }
    }
  }
}

// What is in a, but not in b.
inline void subtract(index_view a, index_view b, index_set& out) {
  auto j = b.runs().begin();
  for (const index_run run : a.runs()) {
    std::uint32_t at = run.first;
    for (; j != b.runs().end() && j->first < run.last; ++j) {
      out.add(at, j->first);
      at = std::max(at, j->last);
      if (j->last > run.last) {
        break;
      }
    }
    out.add(at, run.last);
  }
}

// The first `oldest` and the last `newest` indices of a set.
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
