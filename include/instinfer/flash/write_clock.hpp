#pragma once
// Times what appends and housekeeping make the flash do: at once, or beside the reads of the next attend.

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "instinfer/flash/attend_work.hpp"
#include "instinfer/flash/background_writes.hpp"
#include "instinfer/flash/drive_rules.hpp"
#include "instinfer/flash/ftl_counters.hpp"
#include "instinfer/flash/receipt.hpp"
#include "instinfer/flash/timeline.hpp"

namespace instinfer::flash {

template <class Arbitration>
class write_clock {
 public:
  // Throws bad_argument for rules that cannot be, and what timelines throw.
  write_clock(const drive_spec& drive, const drive_rules& rules)
      : timeline_{drive.geometry, drive.timing, (validate(rules), rules.reads)} {
    if (rules.background_writes) {
      background_.emplace(drive, rules);
    }
  }

  // One batch after the other: what is moved is read, then written; what died by that is erased last. In the background it
  // takes no time yet.
  receipt charge(const ftl_operations& operations) {
    receipt done;
    if (background_) {
      background_->add(operations);
      return done;
    }
    const auto ns = [](const batch_times& batch) {
      return static_cast<double>(batch.makespan_ps()) * 1e-3;
    };
    done.moving_ns = ns(timeline_.read(operations.reads));
    done.flash_write_ns = ns(timeline_.program(operations.programs));
    done.erase_ns = ns(timeline_.erase(operations.erases));
    return done;
  }

  // What was left for later runs beside the attend that `attends` has timed last, and is in `done`.
  template <class AttendClock>
  void run_beside(const AttendClock& attends, const attend_work& work,
                  std::span<const location> locations, receipt& done) {
    if (!background_ || background_->empty()) {
      return;
    }
    reads_.clear();
    attends.each_release(work, done, [&](std::uint32_t load, std::int64_t ps) {
      for (std::uint32_t i = work.loads[load].first_page; i < work.loads[load].last_page; ++i) {
        if (work.pages[i].page != no_page) {
          reads_.push_back({.where = locations[i], .arrival_ps = ps});
        }
      }
    });
    const auto effect = background_->beside(reads_);
    done.delay_ns = effect.delay_ns;
    done.attention_ns += effect.delay_ns;
    done.background_ns = effect.end_ns;
  }

 private:
  timeline<Arbitration> timeline_;
  std::optional<background_writes<Arbitration>> background_;
  std::vector<request> reads_;
};

}  // namespace instinfer::flash
