#pragma once
// The time of a call of flash::engine, by part.

#include <cstdint>
#include <vector>

#include "instinfer/flash/accelerator/unit_breakdown.hpp"
#include "instinfer/flash/attend/attend_bounds.hpp"
#include "instinfer/flash/attend/attend_phase.hpp"

namespace instinfer::flash {

struct call_times {
  std::vector<phase_ns> phases = {};
  double link_ns = 0;         // in storage: q down and the output up; append: K and V down
  double attention_ns = 0;    // all phases
  double flash_write_ns = 0;  // programs, with those of moved pages
  double moving_ns = 0;       // reads of moved pages, and of those that a truncate reads
  double erase_ns = 0;
  unit_breakdown units = {};  // of an attend
  attend_bounds bounds = {};  // of an attend; bottleneck.hpp names what sets its pace
  double stalled_ns = 0;      // part of units[unit::flash]: data that waited for a later stage
  double delay_ns = 0;        // part of attention_ns: reads that waited for background writes
  // End of the background writes, since the query arrived, if no other call comes. Not part of the
  // total.
  double background_ns = 0;
  std::uint64_t backlog = 0;  // background writes that are not done at the end of the attend

  double total_ns() const { return link_ns + attention_ns + flash_write_ns + moving_ns + erase_ns; }

  // Both calls, `next` after this one: times add up, phases follow one another, and the state of
  // the background is that after `next`.
  call_times& operator+=(const call_times& next) {
    phases.insert(phases.end(), next.phases.begin(), next.phases.end());
    link_ns += next.link_ns;
    attention_ns += next.attention_ns;
    flash_write_ns += next.flash_write_ns;
    moving_ns += next.moving_ns;
    erase_ns += next.erase_ns;
    units += next.units;
    bounds += next.bounds;
    stalled_ns += next.stalled_ns;
    delay_ns += next.delay_ns;
    background_ns = next.background_ns;
    backlog = next.backlog;
    return *this;
  }
};

}  // namespace instinfer::flash
