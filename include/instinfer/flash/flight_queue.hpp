#pragma once
// The commands of one channel that have left their queues and still hold their dies.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace instinfer::flash {

struct flight {
  std::int32_t command = 0;
  std::int32_t die = 0;        // within the channel
  std::int32_t next_page = 0;  // of the command, to cross the bus
  std::int64_t begin = 0;      // first command cycle
  std::int64_t ready = 0;      // end of the array time
};

// Array times of a batch are equal, so commands finish in the order of issue: a FIFO, as a ring buffer
// of at least one entry a die.
class flight_queue {
 public:
  explicit flight_queue(std::int32_t dies)
      : flights_(std::bit_ceil(static_cast<std::size_t>(dies))) {}

  void clear() { oldest_ = next_ = 0; }
  bool empty() const { return oldest_ == next_; }
  flight& oldest() { return flights_[oldest_ & (flights_.size() - 1)]; }
  flight& push() { return flights_[next_++ & (flights_.size() - 1)]; }
  void pop() { ++oldest_; }

 private:
  std::vector<flight> flights_;
  std::size_t oldest_ = 0;
  std::size_t next_ = 0;
};

}  // namespace instinfer::flash
