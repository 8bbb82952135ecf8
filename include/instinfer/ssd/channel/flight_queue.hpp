#pragma once
// The commands of one channel that have left their queues and still hold their dies, in the order in
// which their data or arrays are ready.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace instinfer::flash {

struct flight {
  std::int32_t command = 0;
  std::int32_t die = 0;        // within the channel
  std::int32_t next_page = 0;  // of the command, to cross the bus
  std::int32_t issue = 0;      // number of the command in the channel's order of issue
  std::int64_t begin = 0;      // first command cycle
  std::int64_t ready = 0;      // end of the array time, or of the move to the cache register
};

// A ring buffer of at least one entry a die. Where array times are equal, commands are ready in the
// order of issue: a FIFO. Where page types, retries or cache registers change that order, new ones
// are inserted from the back: as many steps as there are flights that the new one overtakes, fewer
// than dies on the channel.
class flight_queue {
 public:
  explicit flight_queue(std::int32_t dies)
      : flights_(std::bit_ceil(static_cast<std::size_t>(dies))) {}

  void clear() { oldest_ = seen_ = next_ = 0; }
  bool empty() const { return oldest_ == next_; }
  flight& oldest() { return at(oldest_); }
  void pop() { ++oldest_; }

  // When the first one that ready_by has not seen is ready. Precondition: there is one.
  bool all_seen() const { return seen_ == next_; }
  std::int64_t next_ready() { return at(seen_).ready; }

  // Precondition: ready no earlier than any other.
  void push(const flight& f) { at(next_++) = f; }

  // By ready time, then issue.
  void insert(const flight& f) {
    std::size_t place = next_++;
    for (; place != oldest_ && before(f, at(place - 1)); --place) {
      at(place) = at(place - 1);
    }
    at(place) = f;
  }

  // Calls see(flight) for each that is ready by `now` and has not been seen, in order. Precondition:
  // `now` does not fall, later inserts are ready at `now` or later, and only seen ones are popped.
  template <class See>
  void ready_by(std::int64_t now, See&& see) {
    while (seen_ != next_ && at(seen_).ready <= now) {
      see(at(seen_++));
    }
  }

 private:
  static bool before(const flight& a, const flight& b) {
    return a.ready < b.ready || (a.ready == b.ready && a.issue < b.issue);
  }
  flight& at(std::size_t i) { return flights_[i & (flights_.size() - 1)]; }

  std::vector<flight> flights_;
  std::size_t oldest_ = 0;
  std::size_t seen_ = 0;
  std::size_t next_ = 0;
};

}  // namespace instinfer::flash
