#pragma once
// One request of a mixed stream: what, where, when, and how urgent.

#include <cstdint>

#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

inline constexpr std::int32_t max_priorities = 8;

// One page, or one block to erase (the page coordinate is then ignored but inside the geometry).
// Streams are told apart by priority: 0, the most urgent, for attention reads, say, 1 for writes of
// new tokens, 2 for erases in idle time.
struct io_request {
  array_operation what = array_operation::read;
  location where = {};
  std::int64_t arrival_ps = 0;
  std::int32_t priority = 0;   // [0, max_priorities)
  std::int32_t codewords = 0;  // of a read, that cross the bus; 0: all (codewords.hpp)

  friend constexpr bool operator==(const io_request&, const io_request&) = default;
};

}  // namespace instinfer::flash
