#pragma once
// Writes in the foreground: the time of appends and FTL housekeeping on an otherwise idle drive.
// A menu of write policies:
//
//   foreground_writes   an append ends when its pages are programmed; the default
//   background_writes   pages are programmed during the next attends' reads: background_writes.hpp

#include <cstddef>
#include <cstdint>
#include <span>

#include "instinfer/flash/attend/attend_work.hpp"
#include "instinfer/flash/call_times.hpp"
#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/ftl/counters.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::flash {

template <class Arbitration>
class foreground_writes {
 public:
  // Throws bad_argument for invalid rules, and what timelines throw.
  foreground_writes(const drive_spec& drive, const drive_rules& rules,
                    const Arbitration& arbitration = {})
      : timeline_{drive.geometry, drive.timing, rules, arbitration} {
    require_together(rules, "flash engine: pages of a call");
  }

  // Sets moving_ns, flash_write_ns and erase_ns. The batches run one after the other: reads of
  // moved pages, then programs, then erases of the blocks that became dead.
  void charge(const ftl_operations& operations, call_times& done) {
    const auto ns = [](const batch_times& batch) {
      return static_cast<double>(batch.makespan_ps()) * 1e-3;
    };
    done.moving_ns = ns(timeline_.read(operations.reads));
    done.flash_write_ns = ns(timeline_.program(operations.programs));
    done.erase_ns = ns(timeline_.erase(operations.erases));
  }

  // Time without attends: there is nothing to do in it.
  void pass(double /*ns*/) {}
  std::size_t backlog() const { return 0; }

  // Called after each attend: there are no writes left to run.
  template <class AttendClock>
  void run_beside(const AttendClock&, const attend_work&, std::span<const location>, call_times&) {}

 private:
  timeline<Arbitration> timeline_;
};

}  // namespace instinfer::flash
