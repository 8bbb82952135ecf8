#pragma once
// The time of a call of flash::engine, by part.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "instinfer/attention/machine.hpp"
#include "instinfer/flash/accelerator/unit_breakdown.hpp"

namespace instinfer::flash {

// One reading operation of all heads of a call, in nanoseconds. With attention in storage, phases
// overlap, and the time of a unit is its busy time for this phase. On host routes, phases follow
// each other.
struct phase_time {
  attention::operation op = attention::operation::fold;
  std::uint64_t pages = 0;
  double flash_ns = 0;    // from its first release to its last page
  double filter_ns = 0;   // filter of the busiest channel
  double gemv_ns = 0;     // attention kernels
  double softmax_ns = 0;  // softmax units
  double top_k_ns = 0;    // before the phase
  double route_ns = 0;    // host routes: transfer of pages to the GPU
  double begin_ns = 0;    // release of its first load, since the query arrived
  double end_ns = 0;      // end of its last load

  double total_ns() const { return end_ns - begin_ns; }
};

struct call_times {
  std::vector<phase_time> phases = {};
  double link_ns = 0;         // in storage: q down and the output up; append: K and V down
  double attention_ns = 0;    // all phases
  double flash_write_ns = 0;  // programs, with those of moved pages
  double moving_ns = 0;       // reads of moved pages
  double erase_ns = 0;
  unit_breakdown units = {};  // of an attend
  double stalled_ns = 0;      // part of units[unit::flash]: data that waited for a later stage
  double delay_ns = 0;        // part of attention_ns: reads that waited for background writes
  // End of the background writes during the attend, since the query arrived. Not part of the total.
  double background_ns = 0;

  double total_ns() const { return link_ns + attention_ns + flash_write_ns + moving_ns + erase_ns; }
};

}  // namespace instinfer::flash
