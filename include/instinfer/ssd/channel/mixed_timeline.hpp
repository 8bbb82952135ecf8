#pragma once
// Replays reads, programs and erases that arrive over time with priorities, each channel alone:
// attention reads before background writes, and programs and erases suspended for reads.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/channel/arbitration.hpp"
#include "instinfer/ssd/channel/arrivals.hpp"
#include "instinfer/ssd/channel/batch_statistics.hpp"
#include "instinfer/ssd/channel/batch_times.hpp"
#include "instinfer/ssd/channel/channel_replay.hpp"
#include "instinfer/ssd/channel/io_request.hpp"
#include "instinfer/ssd/channel/replay_work.hpp"
#include "instinfer/ssd/report/events.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// The rules are those of channel_replay.hpp. Only the caller orders a read after a program or erase
// of the same page.
//
// Requests that all arrive at 0 with one priority and one operation take the ticks of a batch that
// arrives together. O(dies of the channel) a bus grant.
template <class Arbitration = data_out_first>
class mixed_timeline {
 public:
  // Throws bad_argument for an invalid geometry, timing or rules, error if a duration does not fit
  // 63 bits of ticks.
  mixed_timeline(const geometry& g, const timing& t, const drive_rules& rules = {},
                 const Arbitration& arbitration = {})
      : work_{g, t, rules}, arrivals_{g}, channel_{work_, arbitration}, statistics_{g} {
    require_together(rules, "flash requests: requests of one time");
  }

  const tick_scale& scale() const { return work_.ticks.scale(); }
  const geometry& shape() const { return work_.ticks.shape(); }

  // requests: by arrival. finish_ticks: empty, or one entry per request for its end since time 0:
  // the end of decoding (read) or of the array time (program, erase). Throws bad_argument for
  // another length, requests that arrivals::sort refuses, or ticks that might not fit 63 bits;
  // finish_ticks is then untouched. Allocates only while streams still grow.
  template <class Sink = no_events>
  batch_times run(std::span<const io_request> requests, std::span<std::int64_t> finish_ticks = {},
                  Sink&& sink = {}) {
    require(finish_ticks.empty() || finish_ticks.size() == requests.size(), [&] {
      return "flash requests: finish_ticks must be empty or have one entry per request (" +
             std::to_string(requests.size()) + "), got " + std::to_string(finish_ticks.size());
    });
    check_range(requests);
    begin(requests);
    const auto finish = [&](std::size_t i, std::int64_t at) {
      if (!finish_ticks.empty()) {
        finish_ticks[i] = at;
      }
    };
    for (std::int32_t c = 0; c < shape().channels; ++c) {
      arrivals_.begin(c);
      channel_.begin(c, work_);
      for (std::int64_t now = 0; now != never_ticks;) {
        while (arrivals_.next() <= now) {
          const std::size_t i = arrivals_.take();
          work_.queues.add(i, requests[i].where, requests[i].what, requests[i].priority);
        }
        const std::int64_t next = channel_.grant(now, true, work_, finish, sink).next;
        now = std::min(next, std::max(channel_.free_at(), arrivals_.next()));
      }
      statistics_.add(channel_.statistics());
    }
    return statistics_.total(scale().ticks_per_ps);
  }

 private:
  void begin(std::span<const io_request> requests) {
    arrivals_.sort(requests, scale().ticks_per_ps);
    work_.queues.begin(requests.size());
    pages_.clear();
    codewords_.clear();
    for (const io_request& r : requests) {
      pages_.push_back(r.where);
      codewords_.push_back(r.codewords);
    }
    work_.pages = pages_;
    work_.codewords = codewords_;
    statistics_.clear();
  }

  // Even one request after the other, each suspending and resuming another, stays inside 63 bits.
  void check_range(std::span<const io_request> requests) const {
    const operation_ticks& ticks = work_.ticks;
    const double longest =
        std::max({ticks.longest(array_operation::read), ticks.longest(array_operation::program),
                  ticks.longest(array_operation::erase)}) +
        ticks.suspend().longest();
    const double last = requests.empty() ? 0.0 : static_cast<double>(requests.back().arrival_ps);
    constexpr double most = 0.99 * 9223372036854775807.0;
    require(last * static_cast<double>(scale().ticks_per_ps) +
                    static_cast<double>(requests.size() + 1) * longest <
                most,
            [&] {
              return "flash requests: " + std::to_string(requests.size()) + " of them until " +
                     std::to_string(last * 1e-12) + " s might overflow 63 bits of ticks (" +
                     std::to_string(scale().ticks_per_ps) +
                     " a ps); split them, or choose a rounder bus_bytes_per_s";
            });
  }

  replay_work<true> work_;
  arrivals arrivals_;
  channel_replay<Arbitration, true> channel_;
  batch_statistics statistics_;
  std::vector<location> pages_;          // [requests]
  std::vector<std::int32_t> codewords_;  // [requests]
};

}  // namespace instinfer::flash
