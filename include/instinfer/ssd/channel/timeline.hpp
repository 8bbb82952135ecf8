#pragma once
// Replays a batch of page operations on the flash of a drive, each channel alone: O(1) a page,
// exact ticks. The rules of a die are in channel_dies.hpp, those of the bus in channel_replay.hpp.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/channel/arbitration.hpp"
#include "instinfer/ssd/channel/batch_statistics.hpp"
#include "instinfer/ssd/channel/batch_times.hpp"
#include "instinfer/ssd/channel/channel_replay.hpp"
#include "instinfer/ssd/channel/replay_work.hpp"
#include "instinfer/ssd/report/events.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/codewords.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// Every batch starts on an idle drive at tick 0, with all its pages in their queues. The rules are
// those of channel_replay.hpp. A batch has one operation and one priority, so nothing is suspended.
template <class Arbitration = data_out_first>
class timeline {
 public:
  // Throws bad_argument for an invalid geometry, timing or rules, error if a duration does not fit
  // 63 bits of ticks.
  timeline(const geometry& g, const timing& t, const drive_rules& rules = {},
           const Arbitration& arbitration = {})
      : work_{g, t, rules}, arrive_{rules.arrive}, channel_{work_, arbitration}, statistics_{g} {}

  const tick_scale& scale() const { return work_.ticks.scale(); }
  const geometry& shape() const { return work_.ticks.shape(); }

  // finish_ticks: empty, or one entry per page for its end: the end of decoding (read) or of the
  // array time (program, erase). Throws bad_argument for another length, a page outside of the
  // geometry, or a batch whose ticks might not fit 63 bits; finish_ticks is then untouched.
  // Allocates only while batches still grow.
  template <class Sink = no_events>
  batch_times read(std::span<const location> pages, std::span<std::int64_t> finish_ticks = {},
                   Sink&& sink = {}) {
    return replay(array_operation::read, pages, {}, finish_ticks, sink);
  }

  // The same, but only codewords[i] neighbouring codewords of page i cross the bus; 0: all of them.
  // An empty span: all codewords of all pages. Throws bad_argument also for another length, or more
  // codewords than a page has.
  template <class Sink = no_events>
  batch_times read_codewords(std::span<const location> pages,
                             std::span<const std::int32_t> codewords,
                             std::span<std::int64_t> finish_ticks = {}, Sink&& sink = {}) {
    check_codewords(codewords, pages.size(), shape());
    return replay(array_operation::read, pages, codewords, finish_ticks, sink);
  }

  template <class Sink = no_events>
  batch_times program(std::span<const location> pages, std::span<std::int64_t> finish_ticks = {},
                      Sink&& sink = {}) {
    return replay(array_operation::program, pages, {}, finish_ticks, sink);
  }

  // Erases the block of each location; the page coordinate must be inside the geometry and is
  // ignored otherwise.
  template <class Sink = no_events>
  batch_times erase(std::span<const location> blocks, std::span<std::int64_t> finish_ticks = {},
                    Sink&& sink = {}) {
    return replay(array_operation::erase, blocks, {}, finish_ticks, sink);
  }

 private:
  template <class Sink>
  batch_times replay(array_operation what, std::span<const location> pages,
                     std::span<const std::int32_t> codewords, std::span<std::int64_t> finish_ticks,
                     Sink& sink) {
    check(what, pages.size(), finish_ticks.size());
    work_.queues.sort(pages, what, arrive_);
    work_.pages = pages;
    work_.codewords = codewords;
    statistics_.clear();
    const auto finish = [&](std::size_t page, std::int64_t at) {
      if (!finish_ticks.empty()) {
        finish_ticks[page] = at;
      }
    };
    if (plain_reads::can_be(work_)) {
      replay_channels(plain_reads{work_}, finish, sink);
    } else {
      replay_channels(work_, finish, sink);
    }
    return statistics_.total(scale().ticks_per_ps);
  }

  template <class Work, class Finish, class Sink>
  void replay_channels(Work&& work, const Finish& finish, Sink& sink) {
    for (std::int32_t c = 0; c < shape().channels; ++c) {
      channel_.begin(c, work, work.queues.first_die(static_cast<std::size_t>(c)));
      for (std::int64_t now = 0; now != never_ticks;) {
        now = channel_.grant(now, true, work, finish, sink).next;
      }
      statistics_.add(channel_.statistics());
    }
  }

  void check(array_operation what, std::size_t pages, std::size_t finish_ticks) const {
    require(finish_ticks == 0 || finish_ticks == pages, [&] {
      return "flash timeline: finish_ticks must be empty or have one entry per page (" +
             std::to_string(pages) + "), got " + std::to_string(finish_ticks);
    });
    // Even one page after the other stays inside 63 bits. The margin below 2^63 - 1 covers rounding
    // to double.
    constexpr double most = 0.99 * 9223372036854775807.0;
    require(static_cast<double>(pages + 1) * work_.ticks.longest(what) < most, [&] {
      return "flash timeline: a batch of " + std::to_string(pages) +
             " pages might overflow 63 bits of ticks (" + std::to_string(scale().ticks_per_ps) +
             " a ps); split it, or choose a rounder bus_bytes_per_s";
    });
  }

  replay_work<> work_;
  arrival arrive_;
  channel_replay<Arbitration> channel_;
  batch_statistics statistics_;
};

}  // namespace instinfer::flash
