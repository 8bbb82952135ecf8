#pragma once
// Where the time of a call of flash::engine went.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "instinfer/attention/machine.hpp"
#include "instinfer/flash/accelerator/unit_breakdown.hpp"

namespace instinfer::flash {

// One reading operation of all heads of a call, in nanoseconds. In storage phases overlap, and the times of units are how
// long they were busy for this phase. On host routes phases follow each other.
struct phase_time {
  attention::operation op = attention::operation::fold;
  std::uint64_t pages = 0;
  double flash_ns = 0;    // from its first release to its last page
  double filter_ns = 0;   // busiest channel's filter
  double gemv_ns = 0;     // attention kernels
  double softmax_ns = 0;  // softmax units
  double top_k_ns = 0;    // before the phase
  double route_ns = 0;    // host routes: the pages' way to the GPU
  double begin_ns = 0;    // since the query was there: its first load is released
  double end_ns = 0;      // its last load is done

  double total_ns() const { return end_ns - begin_ns; }
};

struct call_times {
  std::vector<phase_time> phases = {};
  double link_ns = 0;         // in storage: q down and the output up; append: K and V down
  double attention_ns = 0;    // all phases
  double flash_write_ns = 0;  // programs, those of pages that are moved too
  double moving_ns = 0;       // reads of pages that are moved
  double erase_ns = 0;
  unit_breakdown units = {};  // of an attend
  double stalled_ns = 0;      // part of units[unit::flash]: data that waited for the units behind
  double delay_ns = 0;        // part of attention_ns: reads that waited for background writes
  // The end of the writes beside the attend, since the query was there; not part of the total.
  double background_ns = 0;

  double total_ns() const { return link_ns + attention_ns + flash_write_ns + moving_ns + erase_ns; }
};

}  // namespace instinfer::flash
