#pragma once
// Writes in the background: programs, erases and moves of an append run at the same time as the
// reads of the next attends.
// They have lower priority, and are suspended for reads if the rules say so (mixed_timeline.hpp).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "instinfer/flash/attend/attend_work.hpp"
#include "instinfer/flash/call_times.hpp"
#include "instinfer/ssd/channel/mixed_timeline.hpp"
#include "instinfer/ssd/channel/operation_ticks.hpp"
#include "instinfer/ssd/ftl/counters.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::flash {

// The model. Reads come at the times they would have on a drive without the writes. The end of an
// attend moves by the delay of its last page.
//
// The backlog. Writes that an attend does not finish go on after it, and meet the reads of the next
// one. The drive works on them during the link time of calls, and while the caller lets time pass.
// An operation whose array works at the end of an attend works for the rest of its time in the next
// one: it starts early by what it has done. This is exact but for the bus, where its data may now
// meet others for the time of a few pages. A read of a moved page that is under way starts again.
template <class Arbitration>
class background_writes {
 public:
  // Throws bad_argument for invalid rules, and what timelines throw.
  background_writes(const drive_spec& drive, const drive_rules& rules,
                    const Arbitration& arbitration = {})
      : timeline_{drive.geometry, drive.timing, rules, arbitration},
        ticks_{drive.geometry, drive.timing, rules} {}

  // The writes come now: after the time that has passed since the last attend.
  void charge(const ftl_operations& operations, call_times& /*done*/) {
    const auto put = [&](array_operation what, std::span<const location> all) {
      for (const location& at : all) {
        writes_.push_back({.what = what, .where = at, .arrival_ps = passed_ps_, .priority = 1});
      }
    };
    put(array_operation::read, operations.reads);
    put(array_operation::program, operations.programs);
    put(array_operation::erase, operations.erases);
  }

  // Time without attends, in which the writes go on.
  void pass(double ns) {
    if (!writes_.empty()) {
      passed_ps_ += static_cast<std::int64_t>(ns * 1e3);
    }
  }

  // Writes that wait or work, at the end of the last attend, and those charged since.
  std::size_t backlog() const { return writes_.size(); }

  // Call it after each attend: `attends` has just timed it, and `done` has its times. Adds the
  // delay. Keeps the writes that are not done at the end of the attend.
  template <class AttendClock>
  void run_beside(const AttendClock& attends, const attend_work& work,
                  std::span<const location> locations, call_times& done) {
    if (writes_.empty()) {
      passed_ps_ = 0;
      return;
    }
    // Some writes began before the last attend ended. The time of the replay begins with them.
    const std::int64_t early_ps = std::max<std::int64_t>(0, -writes_.front().arrival_ps);
    const std::int64_t query_ps = early_ps + passed_ps_;
    for (io_request& write : writes_) {
      write.arrival_ps += early_ps;
    }
    reads_.clear();
    attends.each_release(work, done, [&](std::uint32_t load, std::int64_t ps) {
      for (std::uint32_t i = work.loads[load].first_page; i < work.loads[load].last_page; ++i) {
        if (work.pages[i].page != no_page) {
          reads_.push_back({.where = locations[i],
                            .arrival_ps = query_ps + ps,
                            .codewords = work.pages[i].codewords});
        }
      }
    });
    const std::int64_t alone = run(reads_).read;
    all_.clear();
    std::ranges::merge(writes_, reads_, std::back_inserter(all_), {}, &io_request::arrival_ps,
                       &io_request::arrival_ps);
    const ends together = run(all_);
    const double ns_per_tick = 1e-3 / static_cast<double>(timeline_.scale().ticks_per_ps);
    done.delay_ns =
        static_cast<double>(std::max<std::int64_t>(together.read - alone, 0)) * ns_per_tick;
    done.attention_ns += done.delay_ns;
    done.background_ns = std::max(0.0, static_cast<double>(together.write) * ns_per_tick -
                                           static_cast<double>(query_ps) * 1e-3);
    keep_unfinished(query_ps + static_cast<std::int64_t>(done.attention_ns * 1e3));
    done.backlog = writes_.size();
    passed_ps_ = 0;
    pass(done.link_ns);
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

  // Of the writes of all_, by their arrival since `end_ps`. It is negative for those that work.
  void keep_unfinished(std::int64_t end_ps) {
    const std::int64_t per_ps = timeline_.scale().ticks_per_ps;
    writes_.clear();
    for (std::size_t i = 0; i < all_.size(); ++i) {
      const std::int64_t left_ps = finish_[i] / per_ps - end_ps;
      if (all_[i].priority == 0 || left_ps <= 0) {
        continue;
      }
      writes_.push_back(all_[i]);
      writes_.back().arrival_ps = 0;
      if (all_[i].what != array_operation::read) {
        const std::int64_t takes_ps = duration_ticks(all_[i]) / per_ps;
        writes_.back().arrival_ps = std::min<std::int64_t>(0, left_ps - takes_ps);
      }
    }
    std::ranges::stable_sort(writes_, {}, &io_request::arrival_ps);
  }
  // Of a program or erase, from the first cycle of its command.
  std::int64_t duration_ticks(const io_request& write) const {
    return ticks_.cycles(write.what, 1) + ticks_.array(write.what, write.where) +
           (write.what == array_operation::program ? ticks_.transfer() : 0);
  }

  mixed_timeline<Arbitration> timeline_;
  operation_ticks ticks_;
  std::vector<io_request> writes_;  // by arrival, since the end of the last attend
  std::vector<io_request> reads_;
  std::vector<io_request> all_;
  std::vector<std::int64_t> finish_;  // [all_] or [reads_]
  std::int64_t passed_ps_ = 0;        // since the end of the last attend
};

}  // namespace instinfer::flash
