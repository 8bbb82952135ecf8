#pragma once
// The commands of one channel that have left their queues: those that their dies still work on, and
// those whose data waits for the bus.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "instinfer/codec/unit_rules.hpp"

namespace instinfer::flash {

struct flight {
  std::int32_t command = 0;
  std::int32_t die = 0;        // within the channel
  std::int32_t next_page = 0;  // of the command, to cross the bus
  std::int32_t issue = 0;      // number of the command in the channel's order of issue
  std::int32_t priority = 0;
  std::int64_t ready = 0;  // end of the array time, or of the move to the cache register
};

// A ring buffer with at least one entry per die. Commands whose data waits come before those at
// work:
// - at work: by ready time, then by issue
// - waiting: by priority, then in the order in which they became ready
// If all array times and priorities are equal, commands become ready in the order of issue, and
// none moves. Otherwise a new entry is inserted from the back, in as many steps as there are
// commands that it overtakes; these are fewer than the dies of the channel.
class flight_queue {
 public:
  explicit flight_queue(std::int32_t dies)
      : flights_(std::bit_ceil(static_cast<std::size_t>(dies))), mask_{flights_.size() - 1} {}

  void clear() { first_ = working_ = end_ = 0; }

  bool empty() const { return first_ == end_; }
  bool any_works() const { return working_ != end_; }

  // The next one to be ready. Precondition: any_works().
  const flight& next_ready() const { return at(working_); }
  // The first one that waits, or else next_ready(). Precondition: !empty().
  flight& next_to_send() { return at(first_); }
  const flight& next_to_send() const { return at(first_); }

  void add(const flight& f) {
    std::size_t place = end_++;
    for (; place != working_ && is_ready_before(f, at(place - 1)); --place) {
      at(place) = at(place - 1);
    }
    // Field by field: a copy of 32 bytes would wait for the stores that have just made its parts.
    flight& to = at(place);
    to.command = f.command;
    to.die = f.die;
    to.next_page = f.next_page;
    to.issue = f.issue;
    to.priority = f.priority;
    to.ready = f.ready;
  }

  // The data of next_ready() waits from now on.
  void wait() {
    std::size_t place = working_++;
    if (place != first_ && at(place).priority < at(place - 1).priority) {
      const flight f = at(place);
      for (; place != first_ && f.priority < at(place - 1).priority; --place) {
        at(place) = at(place - 1);
      }
      at(place) = f;
    }
  }

  // Removes next_ready().
  void end() {
    for (std::size_t place = working_++; place != first_; --place) {
      at(place) = at(place - 1);
    }
    ++first_;
  }

  // Removes and returns the one that works on `die`. Precondition: there is one.
  flight remove(std::int32_t die) {
    std::size_t place = working_;
    while (at(place).die != die) {
      ++place;
    }
    const flight removed = at(place);
    for (--end_; place != end_; ++place) {
      at(place) = at(place + 1);
    }
    return removed;
  }

  // Removes next_to_send().
  void sent() {
    ++first_;
    working_ = std::max(working_, first_);
  }

 private:
  static bool is_ready_before(const flight& a, const flight& b) {
    return a.ready < b.ready || (a.ready == b.ready && a.issue < b.issue);
  }
  flight& at(std::size_t i) { return flights_[i & mask_]; }
  const flight& at(std::size_t i) const { return flights_[i & mask_]; }

  std::vector<flight> flights_;
  std::size_t mask_;
  std::size_t first_ = 0;    // the first one that waits
  std::size_t working_ = 0;  // the first one that works
  std::size_t end_ = 0;
};

}  // namespace instinfer::flash
