#pragma once
// The buffer between the bus of one channel and its filter, and when the filter takes its pages.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// A page takes room from the start of its data-out until it has passed the filter. Pages are
// numbered in order; number n uses the place of number n - room. The bus may run ahead of the
// filter: room_is_known() says whether the time at which the next place is free has been computed.
class filter_buffer {
 public:
  explicit filter_buffer(std::int32_t room)
      : places_(std::bit_ceil(static_cast<std::size_t>(room))),
        room_{static_cast<std::uint64_t>(room)} {}

  void clear() {
    came_ = passed_ = 0;
    free_at_ = busy_ = 0;
  }

  // Whether it is known when the place of the next page is free.
  bool room_is_known() const { return came_ < passed_ + room_; }
  // Precondition: room_is_known().
  std::int64_t room_at() const { return came_ < room_ ? 0 : place(came_ - room_).gone_at; }

  // A page crosses the bus and is decoded at `there_at`. Precondition: there is room.
  void come(std::size_t task, std::int64_t there_at) {
    place(came_++) = {.task = task, .there_at = there_at};
  }

  // When the filter is free and has a page, so that it asks for a place behind it; never_ticks
  // without a page.
  std::int64_t asks_at() const {
    return passed_ == came_ ? never_ticks : std::max(free_at_, place(passed_).there_at);
  }
  std::size_t task() const { return place(passed_).task; }
  std::int64_t there_at() const { return place(passed_).there_at; }

  // The page passes the filter from `begin` on for `ticks`. Returns when it is through.
  std::int64_t pass(std::int64_t begin, std::int64_t ticks) {
    free_at_ = place(passed_++).gone_at = begin + ticks;
    busy_ += ticks;
    return free_at_;
  }

  std::int64_t busy_ticks() const { return busy_; }

 private:
  struct page {
    std::size_t task = 0;
    std::int64_t there_at = 0;
    std::int64_t gone_at = 0;
  };
  page& place(std::uint64_t n) { return places_[n & (places_.size() - 1)]; }
  const page& place(std::uint64_t n) const { return places_[n & (places_.size() - 1)]; }

  std::vector<page> places_;  // a ring of at least `room`
  std::uint64_t room_;
  std::uint64_t came_ = 0;
  std::uint64_t passed_ = 0;
  std::int64_t free_at_ = 0;
  std::int64_t busy_ = 0;
};

}  // namespace instinfer::flash
