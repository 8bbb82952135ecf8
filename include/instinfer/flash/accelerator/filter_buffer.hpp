#pragma once
// The pages between one channel's bus and its filter: a buffer of limited room, and when the filter takes what is in it.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// A page takes room from the start of its data-out until it is through the filter. Pages are numbered in the order they come;
// number n uses the place of number n - room. Times may be ahead of each other: what is not known yet is said to be so.
class filter_buffer {
 public:
  explicit filter_buffer(std::int32_t room)
      : places_(std::bit_ceil(static_cast<std::size_t>(room))),
        room_{static_cast<std::uint64_t>(room)} {}

  void clear() {
    came_ = passed_ = 0;
    free_at_ = busy_ = 0;
  }

  // Whether the page before it in the next page's place has been given a time at which it is gone.
  bool room_is_known() const { return came_ < passed_ + room_; }
  // Precondition: room_is_known().
  std::int64_t room_at() const { return came_ < room_ ? 0 : place(came_ - room_).gone_at; }

  // A page is on the bus, and there, decoded, at `there_at`. Precondition: there is room.
  void come(std::size_t task, std::int64_t there_at) {
    place(came_++) = {.task = task, .there_at = there_at};
  }

  // When the filter, free and with a page, asks for a place behind it; never_ticks while no page has come.
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
  page& place(std::uint64_t n) {
    return places_[static_cast<std::size_t>(n) & (places_.size() - 1)];
  }
  const page& place(std::uint64_t n) const {
    return places_[static_cast<std::size_t>(n) & (places_.size() - 1)];
  }

  std::vector<page> places_;  // a ring of at least `room`
  std::uint64_t room_;
  std::uint64_t came_ = 0;
  std::uint64_t passed_ = 0;
  std::int64_t free_at_ = 0;
  std::int64_t busy_ = 0;
};

}  // namespace instinfer::flash
