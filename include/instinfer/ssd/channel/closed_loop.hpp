#pragma once
// Replays reads in a closed loop: a fixed number of requests is in the drive, and the end of each
// lets the next one in. This is how programs with a queue depth load a drive.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <span>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/channel/arbitration.hpp"
#include "instinfer/ssd/channel/batch_statistics.hpp"
#include "instinfer/ssd/channel/batch_times.hpp"
#include "instinfer/ssd/channel/channel_replay.hpp"
#include "instinfer/ssd/channel/replay_work.hpp"
#include "instinfer/ssd/report/events.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// The load of a drive: `depth` requests at a time, each of `request_pages` pages (the last one may
// have fewer). A request ends when its last page is decoded.
struct queue_depth {
  std::size_t depth = 1;
  std::size_t request_pages = 1;
};

struct request_ticks {
  std::int64_t submitted = 0;
  std::int64_t finished = 0;

  friend constexpr bool operator==(const request_ticks&, const request_ticks&) = default;
};

// The rules of the channels are those of channel_replay.hpp. Here they run side by side, because a
// read that ends on one may start one on another: O(channels) a bus grant.
//
// A depth of at least the number of requests is a batch, and takes the ticks of timeline::read. Of
// the requests that begin the loop, drive_rules::arrive says how they come; later ones come alone.
template <class Arbitration = data_out_first>
class closed_loop {
 public:
  // Throws bad_argument for an invalid geometry, timing or rules, error if a duration does not fit
  // 63 bits of ticks.
  closed_loop(const geometry& g, const timing& t, const drive_rules& rules = {},
              const Arbitration& arbitration = {})
      : work_{g, t, rules},
        arrive_{rules.arrive},
        channels_(static_cast<std::size_t>(g.channels),
                  channel_replay<Arbitration>{work_, arbitration}),
        due_(channels_.size()),
        statistics_{g} {}

  const tick_scale& scale() const { return work_.ticks.scale(); }
  const geometry& shape() const { return work_.ticks.shape(); }

  // Reads `pages`, request after request, from tick 0 on an idle drive. times: empty, or one entry
  // per request. Throws bad_argument for another length, a depth or request of 0, a page outside of
  // the geometry, or ticks that might not fit 63 bits; `times` is then untouched.
  template <class Sink = no_events>
  batch_times read(std::span<const location> pages, const queue_depth& load,
                   std::span<request_ticks> times = {}, Sink&& sink = {}) {
    check(pages, load, times.size());
    begin(pages, load);
    for (std::size_t r = 0; r < times.size(); ++r) {
      times[r] = {};
    }
    const auto finish = [this](std::size_t page, std::int64_t at) { end_page(page, at); };
    for (std::int64_t now = next(); now != never_ticks; now = next()) {
      for (; !ends_.empty() && ends_.top().tick == now; ends_.pop()) {
        if (!times.empty()) {
          times[ends_.top().request].finished = now;
        }
        if (next_request_ < open_.size()) {
          if (!times.empty()) {
            times[next_request_].submitted = now;
          }
          submit(now);
        }
      }
      for (std::size_t c = 0; c < channels_.size(); ++c) {
        if (due_[c] == now) {
          due_[c] = channels_[c].grant(now, true, work_, finish, sink).next;
        }
      }
    }
    statistics_.clear();
    for (const channel_replay<Arbitration>& channel : channels_) {
      statistics_.add(channel.statistics());
    }
    return statistics_.total(scale().ticks_per_ps);
  }

 private:
  struct open_request {
    std::size_t pages;  // whose end is not known yet
    std::int64_t end;   // of the others
  };
  struct request_end {
    std::int64_t tick;
    std::size_t request;
    friend bool operator>(const request_end& a, const request_end& b) { return a.tick > b.tick; }
  };

  void begin(std::span<const location> pages, const queue_depth& load) {
    load_ = load;
    open_.assign(requests_of(pages.size(), load), {load.request_pages, 0});
    if (!open_.empty()) {
      open_.back().pages = pages.size() - (open_.size() - 1) * load.request_pages;
    }
    next_request_ = std::min(load.depth, open_.size());
    work_.queues.begin(pages.size());
    work_.pages = pages;
    // The first requests come like a batch (command_queues.hpp).
    first_die_.assign(channels_.size(), none);
    const std::size_t count = std::min(pages.size(), next_request_ * load.request_pages);
    for (std::size_t i = 0; i < count; ++i) {
      std::int32_t& first = first_die_[static_cast<std::size_t>(pages[i].channel)];
      const bool alone = arrive_ == arrival::one_by_one && first == none;
      first = first == none ? work_.queues.die_in_channel(pages[i]) : first;
      work_.queues.add(i, pages[i], alone);
    }
    for (std::size_t c = 0; c < channels_.size(); ++c) {
      const bool in_turn = arrive_ == arrival::one_by_one && first_die_[c] != none;
      channels_[c].begin(static_cast<std::int32_t>(c), work_, in_turn ? first_die_[c] : 0);
      due_[c] = 0;
    }
  }

  // The end of a page is known before it comes, as its data is on the bus until then.
  void end_page(std::size_t page, std::int64_t at) {
    const std::size_t request = page / load_.request_pages;
    open_request& of = open_[request];
    of.end = std::max(of.end, at);
    if (--of.pages == 0) {
      ends_.push({of.end, request});
    }
  }

  std::int64_t next() const {
    const std::int64_t grant = *std::ranges::min_element(due_);
    return ends_.empty() ? grant : std::min(grant, ends_.top().tick);
  }

  void submit(std::int64_t now) {
    const std::size_t request = next_request_++;
    const std::size_t first = request * load_.request_pages;
    for (std::size_t i = first; i < first + open_[request].pages; ++i) {
      const location& at = work_.pages[i];
      const auto c = static_cast<std::size_t>(at.channel);
      work_.queues.add(i, at);
      channels_[c].come(work_.queues.die_in_channel(at));
      due_[c] = std::min(due_[c], std::max(channels_[c].free_at(), now));
    }
  }

  static std::size_t requests_of(std::size_t pages, const queue_depth& load) {
    return pages / load.request_pages + (pages % load.request_pages != 0 ? 1 : 0);
  }

  void check(std::span<const location> pages, const queue_depth& load, std::size_t times) const {
    require(load.depth > 0 && load.request_pages > 0, [&] {
      return "flash closed loop: depth and request_pages must be positive, got " +
             std::to_string(load.depth) + " and " + std::to_string(load.request_pages);
    });
    const std::size_t requests = requests_of(pages.size(), load);
    require(times == 0 || times == requests, [&] {
      return "flash closed loop: times must be empty or have one entry per request (" +
             std::to_string(requests) + "), got " + std::to_string(times);
    });
    for (std::size_t i = 0; i < pages.size(); ++i) {
      require(inside(pages[i], shape()), [&] {
        return "flash closed loop: page " + std::to_string(i) + " (" + to_string(pages[i]) +
               ") lies outside of " + to_string(shape());
      });
    }
    // Even one page after the other stays inside 63 bits.
    constexpr double most = 0.99 * 9223372036854775807.0;
    const double longest = work_.ticks.longest(array_operation::read);
    require(static_cast<double>(pages.size() + 1) * longest < most, [&] {
      return "flash closed loop: " + std::to_string(pages.size()) +
             " pages might overflow 63 bits of ticks (" + std::to_string(scale().ticks_per_ps) +
             " a ps); split them, or choose a rounder bus_bytes_per_s";
    });
  }

  static constexpr std::int32_t none = -1;

  replay_work<> work_;
  arrival arrive_;
  std::vector<channel_replay<Arbitration>> channels_;
  std::vector<std::int64_t> due_;  // [channels] tick of the next grant
  batch_statistics statistics_;
  queue_depth load_;
  std::size_t next_request_ = 0;
  std::vector<open_request> open_;       // [requests]
  std::vector<std::int32_t> first_die_;  // [channels] of the first page, `none` without one
  std::priority_queue<request_end, std::vector<request_end>, std::greater<>> ends_;
};

}  // namespace instinfer::flash
