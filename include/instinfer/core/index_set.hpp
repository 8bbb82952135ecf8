#pragma once
// A sorted set of indices, stored as disjoint runs: the dims, tokens or pages that a policy
// selects.
// All tokens of a long context are one run; a top-k selection is many short runs.

#include <algorithm>
#include <cassert>
#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/core/scratch.hpp"

namespace instinfer {

// The half-open range [first, last).
struct index_run {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
  constexpr std::uint32_t size() const { return last - first; }
  friend constexpr bool operator==(const index_run&, const index_run&) = default;
};

// A view of a set: what operations take and return.
class index_view {
 public:
  index_view() = default;
  index_view(std::span<const index_run> runs, std::uint32_t count) : runs_{runs}, count_{count} {}

  std::span<const index_run> runs() const { return runs_; }
  std::uint32_t count() const { return count_; }
  bool empty() const { return count_ == 0; }

  bool contains(std::uint32_t index) const {
    const auto after =
        std::upper_bound(runs_.begin(), runs_.end(), index,
                         [](std::uint32_t i, const index_run& run) { return i < run.first; });
    return after != runs_.begin() && index < (after - 1)->last;
  }

  template <class F>
  void for_each(F&& f) const {
    for (const index_run& run : runs_) {
      for (std::uint32_t i = run.first; i < run.last; ++i) {
        f(i);
      }
    }
  }

  friend bool operator==(const index_view& a, const index_view& b) {
    return a.count_ == b.count_ &&
           std::equal(a.runs_.begin(), a.runs_.end(), b.runs_.begin(), b.runs_.end());
  }

 private:
  std::span<const index_run> runs_;
  std::uint32_t count_ = 0;
};

// The owner of a set. Indices are appended in ascending order; clear() keeps the memory.
class index_set {
 public:
  index_set() = default;

  static index_set range(std::uint32_t first, std::uint32_t last) {
    index_set s;
    s.add(first, last);
    return s;
  }

  // Appends [first, last). It may touch the end of the set, but must not start before it. Empty
  // runs are ignored.
  void add(std::uint32_t first, std::uint32_t last) {
    if (first >= last) {
      return;
    }
    assert(runs_.empty() || runs_.back().last <= first);
    count_ += last - first;
    if (!runs_.empty() && runs_.back().last == first) {
      runs_.back().last = last;
    } else {
      runs_.push_back({first, last});
    }
  }
  void add(std::uint32_t index) { add(index, index + 1); }

  // Reserves room for `runs` more runs: adding them then cannot throw.
  void reserve(std::size_t runs) { reserve_scratch(runs_, runs_.size() + runs); }

  void clear() {
    runs_.clear();
    count_ = 0;
  }

  // Removes the first index. The set must not be empty.
  void drop_first() {
    --count_;
    if (++runs_.front().first == runs_.front().last) {
      runs_.erase(runs_.begin());
    }
  }

  // Removes the indices from `last` on.
  void drop_from(std::uint32_t last) {
    while (!runs_.empty() && runs_.back().last > last) {
      index_run& run = runs_.back();
      const std::uint32_t stays = run.first < last ? last - run.first : 0;
      count_ -= run.size() - stays;
      run.last = run.first + stays;
      if (stays == 0) {
        runs_.pop_back();
      }
    }
  }

  // Subtracts `by` from every index; none may be smaller.
  void move_down(std::uint32_t by) {
    for (index_run& run : runs_) {
      run = {run.first - by, run.last - by};
    }
  }

  index_view view() const { return {runs_, count_}; }
  // NOLINTNEXTLINE: a set converts to its view, as a string converts to string_view
  operator index_view() const { return view(); }
  std::uint32_t count() const { return count_; }

  friend bool operator==(const index_set&, const index_set&) = default;

  // Whether the runs of a set that came from a file are a set: ascending, disjoint, counted, and
  // within [first, last).
  bool within(std::uint32_t first, std::uint32_t last) const {
    std::uint64_t count = 0;
    for (const index_run& run : runs_) {
      if (run.first < first || run.first >= run.last || run.last > last) {
        return false;
      }
      first = run.last;
      count += run.size();
    }
    return count == count_;
  }

  void each_part(auto&& file) { file(runs_, count_); }

 private:
  std::vector<index_run> runs_;
  std::uint32_t count_ = 0;
};

// Calls f(index, position) for every index of `chosen`, a subset of `all`; position is its position
// in `all`. Linear in the runs of `all` and the indices of `chosen`.
template <class F>
void for_each_position(index_view all, index_view chosen, F&& f) {
  auto run = all.runs().begin();
  std::uint32_t before = 0;  // indices in the runs before `run`
  chosen.for_each([&](std::uint32_t index) {
    for (; index >= run->last; ++run) {
      before += run->size();
    }
    f(index, before + index - run->first);
  });
}

// Adds the indices of `all` at the given positions to `chosen`: the inverse of for_each_position.
// Linear in the runs of both.
inline void add_at_positions(index_view all, index_view positions, index_set& chosen) {
  auto run = all.runs().begin();
  std::uint32_t before = 0;
  for (const index_run& wanted : positions.runs()) {
    for (std::uint32_t position = wanted.first; position < wanted.last;) {
      for (; position - before >= run->size(); ++run) {
        before += run->size();
      }
      const std::uint32_t n = std::min(wanted.last, before + run->size()) - position;
      const std::uint32_t first = run->first + position - before;
      chosen.add(first, first + n);
      position += n;
    }
  }
}

}  // namespace instinfer
