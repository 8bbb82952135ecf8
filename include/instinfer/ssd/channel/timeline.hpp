#pragma once
// Replays a batch of page operations on a drive's flash, each channel alone and by arrays: O(1) a
// page, exact ticks.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/channel/arbitration.hpp"
#include "instinfer/ssd/channel/batch_rules.hpp"
#include "instinfer/ssd/channel/batch_statistics.hpp"
#include "instinfer/ssd/channel/batch_times.hpp"
#include "instinfer/ssd/channel/cache_registers.hpp"
#include "instinfer/ssd/channel/flight_queue.hpp"
#include "instinfer/ssd/channel/operation_ticks.hpp"
#include "instinfer/ssd/report/events.hpp"
#include "instinfer/ssd/spec/codewords.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// The model. Every batch starts on an idle drive at tick 0.
// - read: command cycles RC(p) on the bus; the array, bus free; p data-outs, a bus grant each; each
//   page is there when it is decoded.
// - program: one bus grant for command cycles PC(p) and p pages of data; the array.
// - erase: command cycles EC(p) on the bus; the array.
//
// A die is held from the first command cycle to the end of its last data-out (read) or of its array
// time (program, erase): it takes no further command meanwhile, so a read never overlaps with its
// own data-out. With batch_rules::cache_read it does, see cache_registers.hpp. The other dies of its
// chip go on: only the bus is shared. An array that finishes at the tick of a bus release is ready;
// data-outs go in the order in which they became ready, those of one tick in the order of issue.
//
// Array times: tR and tPROG by page type (page_types.hpp), tR times one plus the page's retries (read_retry.hpp);
// the planes of a command all work until the slowest is done.
template <class Arbitration = data_out_first>
class timeline {
  static_assert(BusArbitration<Arbitration>,
                "instinfer: a bus arbitration needs choose() -> bus_turn and must be copyable, see "
                "ssd/channel/arbitration.hpp");

 public:
  // Throws bad_argument for an invalid geometry, timing or retry, error if a duration does not fit
  // 63 bits of ticks.
  timeline(const geometry& g, const timing& t, batch_rules rules = {}, Arbitration arbitration = {})
      : ticks_{g, t, rules.retry},
        rules_{rules},
        arbitration_{arbitration},
        statistics_{g},
        in_flight_{g.dies_per_channel()},
        registers_{rules.cache_read ? g.dies_per_channel() : 0} {}

  const tick_scale& scale() const { return ticks_.scale(); }
  const geometry& shape() const { return ticks_.shape(); }

  // finish_ticks: empty, or one entry per page: when its data-out is decoded (read) or its array
  // time over (program, erase). Throws bad_argument for another length, a page outside of the
  // geometry, or a batch whose ticks might not fit 63 bits; finish_ticks is then untouched.
  // Allocates only while batches still grow.
  template <class Sink = no_events>
  batch_times read(std::span<const location> pages, std::span<std::int64_t> finish_ticks = {},
                   Sink&& sink = {}) {
    return read_codewords(pages, {}, finish_ticks, sink);
  }

  // The same where of page i only codewords[i] cross the bus, which are neighbours; 0: all of them. Empty: all of all pages.
  // Throws bad_argument also for another length, or more codewords than a page has.
  template <class Sink = no_events>
  batch_times read_codewords(std::span<const location> pages,
                             std::span<const std::int32_t> codewords,
                             std::span<std::int64_t> finish_ticks = {}, Sink&& sink = {}) {
    check_codewords(codewords, pages.size(), shape());
    codewords_ = codewords;
    begin(pages, finish_ticks, array_operation::read);
    for (std::int32_t channel = 0; channel < shape().channels; ++channel) {
      statistics_.begin_channel(static_cast<std::size_t>(channel));
      in_flight_.clear();
      if (rules_.cache_read) {
        registers_.clear();
        replay_reads<read_path::cached>(pages, finish_ticks, sink);
      } else if (ticks_.reads_alike() && codewords.empty()) {
        replay_reads<read_path::alike>(pages, finish_ticks, sink);
      } else {
        replay_reads<read_path::varied>(pages, finish_ticks, sink);
      }
    }
    return statistics_.total(scale().ticks_per_ps);
  }

  template <class Sink = no_events>
  batch_times program(std::span<const location> pages, std::span<std::int64_t> finish_ticks = {},
                      Sink&& sink = {}) {
    return hold(pages, finish_ticks, array_operation::program, event_kind::program, sink);
  }

  // Erases the block of each location; the page coordinate must be inside the geometry and is
  // ignored otherwise.
  template <class Sink = no_events>
  batch_times erase(std::span<const location> blocks, std::span<std::int64_t> finish_ticks = {},
                    Sink&& sink = {}) {
    return hold(blocks, finish_ticks, array_operation::erase, event_kind::erase, sink);
  }

 private:
  // What decides the order in which arrays are ready: the order of issue, their times, or also when
  // a cache register is freed.
  enum class read_path { alike, varied, cached };

  void begin(std::span<const location> pages, std::span<const std::int64_t> finish_ticks,
             array_operation what) {
    require(finish_ticks.empty() || finish_ticks.size() == pages.size(), [&] {
      return "flash timeline: finish_ticks must be empty or have one entry per page (" +
             std::to_string(pages.size()) + "), got " + std::to_string(finish_ticks.size());
    });
    // Even one page after the other stays inside 63 bits.
    constexpr double most =
        0.99 * 9223372036854775807.0;  // of 2^63 - 1; the margin covers rounding to double
    require(static_cast<double>(pages.size() + 1) * ticks_.longest(what) < most, [&] {
      return "flash timeline: a batch of " + std::to_string(pages.size()) +
             " pages might overflow 63 bits of ticks (" + std::to_string(scale().ticks_per_ps) +
             " a ps); split it, or choose a rounder bus_bytes_per_s";
    });
    statistics_.begin(pages, what, rules_);
  }

  // The slowest plane's.
  std::int64_t read_array(std::span<const location> pages,
                          const batch_statistics::issued& c) const {
    std::int64_t longest = 0;
    for (std::int32_t k = 0; k < c.pages; ++k) {
      longest = std::max(longest, ticks_.read_array(pages[statistics_.page(c.command, k)]));
    }
    return longest;
  }

  template <read_path Path, class Sink>
  void replay_reads(std::span<const location> pages, std::span<std::int64_t> finish_ticks,
                    Sink& sink) {
    Arbitration bus = arbitration_;
    std::int64_t now = 0;  // the bus is free from here on
    std::int64_t transfer = ticks_.transfer();
    const bool in_parts = Path != read_path::alike && !codewords_.empty();
    while (true) {
      if constexpr (Path == read_path::cached) {  // what has moved by now leaves its array free
        in_flight_.ready_by(now, [&](const flight& moved) { statistics_.take_next(moved.die); });
      }
      const bool data_waits = !in_flight_.empty() && in_flight_.oldest().ready <= now;
      const bool command_waits = statistics_.command_waits();
      if (data_waits && (!command_waits || bus.choose() == bus_turn::data_out)) {
        flight& sending = in_flight_.oldest();
        if (!finish_ticks.empty() || in_parts || traced<Sink>) {
          const std::size_t page = statistics_.page(sending.command, sending.next_page);
          if (in_parts) {
            transfer = ticks_.transfer(codewords_[page]);
          }
          if (!finish_ticks.empty()) {
            finish_ticks[page] = now + transfer + ticks_.decode();
          }
          report(sink, event_kind::data_out, pages, page, now, now + transfer);
        }
        now += transfer;
        statistics_.book_data_out(transfer);
        if (++sending.next_page == statistics_.page_count(sending.command)) {
          let_go<Path>(now);
        }
      } else if (command_waits) {
        now = issue_read<Path>(pages, now, sink);
      } else if (!in_flight_.empty()) {
        now = in_flight_.oldest().ready;
      } else {
        return;
      }
    }
  }

  // Command cycles at `now`, then the array. Returns the end of the cycles.
  template <read_path Path, class Sink>
  std::int64_t issue_read(std::span<const location> pages, std::int64_t now, Sink& sink) {
    const batch_statistics::issued c = statistics_.take();
    const std::int64_t cycles = ticks_.cycles(array_operation::read, c.pages);
    std::int64_t array = ticks_.array(array_operation::read);
    if (Path == read_path::varied || (Path == read_path::cached && !ticks_.reads_alike())) {
      array = read_array(pages, c);
    }
    statistics_.book_issue(c, cycles, 0, array);
    flight started{.command = c.command,
                   .die = c.die,
                   .issue = c.number,
                   .begin = now,
                   .ready = now + cycles + array};
    if constexpr (traced<Sink>) {
      report(sink, event_kind::command, pages, statistics_.page(c.command, 0), now, now + cycles);
      report_array(sink, event_kind::array_read, pages, c, now + cycles, started.ready);
    }
    if constexpr (Path == read_path::alike) {
      in_flight_.push(started);
    } else if (Path == read_path::varied || registers_.enter(started, ticks_.cache_move())) {
      in_flight_.insert(started);
    }
    return now + cycles;
  }

  // The oldest flight's last data-out ended at `now`.
  template <read_path Path>
  void let_go(std::int64_t now) {
    flight done = in_flight_.oldest();
    in_flight_.pop();
    if constexpr (Path == read_path::cached) {
      const std::int64_t since = std::max(done.begin, registers_.left(done.die));
      statistics_.book_end(done.die, now - since, now + ticks_.decode());
      if (registers_.leave(done, now, ticks_.cache_move())) {
        in_flight_.insert(done);
      }
    } else {
      statistics_.book_end(done.die, now - done.begin, now + ticks_.decode());
      statistics_.take_next(done.die);
    }
  }

  // Program and erase: nothing comes back over the bus, so there is nothing to arbitrate.
  template <class Sink>
  batch_times hold(std::span<const location> pages, std::span<std::int64_t> finish_ticks,
                   array_operation what, event_kind kind, Sink& sink) {
    begin(pages, finish_ticks, what);
    for (std::int32_t channel = 0; channel < shape().channels; ++channel) {
      statistics_.begin_channel(static_cast<std::size_t>(channel));
      in_flight_.clear();
      replay_holds(pages, finish_ticks, what, kind, sink);
    }
    return statistics_.total(scale().ticks_per_ps);
  }

  template <class Sink>
  void replay_holds(std::span<const location> pages, std::span<std::int64_t> finish_ticks,
                    array_operation what, event_kind kind, Sink& sink) {
    const std::int64_t data_ticks = what == array_operation::program ? ticks_.transfer() : 0;
    std::int64_t now = 0;
    while (true) {
      while (!in_flight_.empty() && in_flight_.oldest().ready <= now) {
        const flight& done = in_flight_.oldest();
        statistics_.book_end(done.die, done.ready - done.begin, done.ready);
        statistics_.take_next(done.die);
        in_flight_.pop();
      }
      if (statistics_.command_waits()) {
        const batch_statistics::issued c = statistics_.take();
        const std::int64_t begin = now;
        const std::int64_t data_begin = begin + ticks_.cycles(what, c.pages);
        now = data_begin + c.pages * data_ticks;
        // Pages of one command have one page number, so one type.
        const std::int64_t array = ticks_.array(what, pages[statistics_.page(c.command, 0)]);
        const std::int64_t ready = now + array;
        statistics_.book_issue(c, data_begin - begin, now - data_begin, array);
        in_flight_.insert({.command = c.command,
                           .die = c.die,
                           .issue = c.number,
                           .begin = begin,
                           .ready = ready});
        for (std::int32_t k = 0; !finish_ticks.empty() && k < c.pages; ++k) {
          finish_ticks[statistics_.page(c.command, k)] = ready;
        }
        if constexpr (traced<Sink>) {
          report(sink, event_kind::command, pages, statistics_.page(c.command, 0), begin,
                 data_begin);
          for (std::int32_t k = 0; data_ticks > 0 && k < c.pages; ++k) {
            const std::int64_t at = data_begin + k * data_ticks;
            report(sink, event_kind::data_in, pages, statistics_.page(c.command, k), at,
                   at + data_ticks);
          }
          report_array(sink, kind, pages, c, now, ready);
        }
      } else if (!in_flight_.empty()) {
        now = in_flight_.oldest().ready;
      } else {
        return;
      }
    }
  }

  template <class Sink>
  void report_array(Sink& sink, event_kind kind, std::span<const location> pages,
                    const batch_statistics::issued& c, std::int64_t begin, std::int64_t end) const {
    for (std::int32_t k = 0; k < c.pages; ++k) {
      report(sink, kind, pages, statistics_.page(c.command, k), begin, end);
    }
  }

  operation_ticks ticks_;
  batch_rules rules_;
  Arbitration arbitration_;
  batch_statistics statistics_;
  flight_queue in_flight_;
  cache_registers registers_;
  std::span<const std::int32_t> codewords_;  // of the batch
};

}  // namespace instinfer::flash
