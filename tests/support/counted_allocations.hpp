#pragma once
// Counts a program's allocations, and lets one fail on request. A room that uses it links
// counted_allocations.cpp, whose operators replace those of the standard library.

#include <cstdint>

namespace instinfer::test {

extern std::int64_t allocations;       // so far
extern std::int64_t allocations_left;  // until the next one fails; negative: none fails

}  // namespace instinfer::test
