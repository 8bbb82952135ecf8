#pragma once
// Writes in the background: programs, erases and moves of an append run at the same time as the
// reads of the next attend.
// They have lower priority, and are suspended for reads if the rules say so (mixed_timeline.hpp).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "instinfer/flash/attend_work.hpp"
#include "instinfer/flash/call_times.hpp"
#include "instinfer/ssd/channel/mixed_timeline.hpp"
#include "instinfer/ssd/ftl/counters.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::flash {

// The model: reads come at the times they would have on a drive without the writes. All writes come
// at the start, in no order among each other. The end of an attend moves by the delay of its last
// page. Writes that are still running then continue, and the next call does not wait for them.
template <class Arbitration>
class background_writes {
 public:
  // Throws bad_argument for invalid rules, and what timelines throw.
  background_writes(const drive_spec& drive, const drive_rules& rules,
                    const Arbitration& arbitration = {})
      : timeline_{drive.geometry, drive.timing, rules, arbitration} {}

  void charge(const ftl_operations& operations, call_times& /*done*/) {
    const auto put = [&](array_operation what, std::span<const location> all) {
      for (const location& at : all) {
        writes_.push_back({.what = what, .where = at, .priority = 1});
      }
    };
    put(array_operation::read, operations.reads);
    put(array_operation::program, operations.programs);
    put(array_operation::erase, operations.erases);
  }

  // Call it after each attend: `attends` has just timed it, and `done` has its times. Adds the
  // delay, and removes the writes.
  template <class AttendClock>
  void run_beside(const AttendClock& attends, const attend_work& work,
                  std::span<const location> locations, call_times& done) {
    if (writes_.empty()) {
      return;
    }
    reads_.clear();
    attends.each_release(work, done, [&](std::uint32_t load, std::int64_t ps) {
      for (std::uint32_t i = work.loads[load].first_page; i < work.loads[load].last_page; ++i) {
        if (work.pages[i].page != no_page) {
          reads_.push_back(
              {.where = locations[i], .arrival_ps = ps, .codewords = work.pages[i].codewords});
        }
      }
    });
    const std::int64_t alone = run(reads_).read;
    writes_.insert(writes_.end(), reads_.begin(), reads_.end());
    const ends together = run(writes_);
    writes_.clear();
    const double ns_per_tick = 1e-3 / static_cast<double>(timeline_.scale().ticks_per_ps);
    done.delay_ns =
        static_cast<double>(std::max<std::int64_t>(together.read - alone, 0)) * ns_per_tick;
    done.attention_ns += done.delay_ns;
    done.background_ns = static_cast<double>(together.write) * ns_per_tick;
  }

 private:
  struct ends {
    std::int64_t read = 0;  // the last one with priority 0
    std::int64_t write = 0;
  };
  ends run(std::span<const io_request> all) {
    finish_.resize(all.size());
    timeline_.run(all, finish_);
    ends last;
    for (std::size_t i = 0; i < all.size(); ++i) {
      std::int64_t& of = all[i].priority == 0 ? last.read : last.write;
      of = std::max(of, finish_[i]);
    }
    return last;
  }

  mixed_timeline<Arbitration> timeline_;
  std::vector<io_request> writes_;
  std::vector<io_request> reads_;
  std::vector<std::int64_t> finish_;
};

}  // namespace instinfer::flash
