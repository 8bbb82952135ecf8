#pragma once
// Replays a batch of page operations on a drive's flash, each channel alone and by arrays: O(1) a
// page, exact ticks.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/flash/arbitration.hpp"
#include "instinfer/flash/batch_times.hpp"
#include "instinfer/flash/command_queues.hpp"
#include "instinfer/flash/die_ring.hpp"
#include "instinfer/flash/events.hpp"
#include "instinfer/flash/flight_queue.hpp"
#include "instinfer/flash/geometry.hpp"
#include "instinfer/flash/location.hpp"
#include "instinfer/flash/timing.hpp"

namespace instinfer::flash {

// The model. Every batch starts on an idle drive at tick 0.
// - read: command cycles RC(p) on the bus; the array, bus free; p data-outs, a bus grant each.
// - program: one bus grant for command cycles PC(p) and p pages of data; the array.
// - erase: command cycles EC(p) on the bus; the array.
//
// A die is held from the first command cycle to the end of its last data-out (read) or of its array
// time (program, erase): it takes no further command meanwhile, so a read never overlaps with its
// own data-out (no cache read). The other dies of its chip go on: only the bus is shared. An array
// that finishes at the tick of a bus release is ready.
template <class Arbitration = data_out_first>
class timeline {
  static_assert(BusArbitration<Arbitration>,
                "instinfer: a bus arbitration needs choose() -> bus_turn and must be copyable, see "
                "flash/arbitration.hpp");

 public:
  // Throws bad_argument for an invalid geometry or timing, error if a duration does not fit 63 bits
  // of ticks.
  timeline(const geometry& g, const timing& t, batch_rules rules = {}, Arbitration arbitration = {})
      : geometry_{(validate(g), g)},
        scale_{(validate(t), ticks_of(t, g))},
        rules_{rules},
        arbitration_{arbitration},
        queues_{g},
        ring_{g.dies_per_channel()},
        in_flight_{g.dies_per_channel()},
        channels_(static_cast<std::size_t>(g.channels)),
        dies_(static_cast<std::size_t>(g.dies_total())) {
    read_ = durations(t.read_array_ps(), [&](std::int32_t p) { return t.read_cycles_ps(p); });
    program_ = durations(t.program_ps, [&](std::int32_t p) { return t.program_cycles_ps(p); });
    erase_ = durations(t.erase_ps, [&](std::int32_t p) { return t.erase_cycles_ps(p); });
  }

  const tick_scale& scale() const { return scale_; }
  const geometry& shape() const { return geometry_; }

  // finish_ticks: empty, or one entry per page: the end of its data-out (read) or of its array time
  // (program, erase). Throws bad_argument for another length, a page outside of the geometry, or a
  // batch whose ticks might not fit 63 bits; finish_ticks is then untouched. Allocates only while
  // batches still grow.
  template <class Sink = no_events>
  batch_times read(std::span<const location> pages, std::span<std::int64_t> finish_ticks = {},
                   Sink&& sink = {}) {
    begin(pages, finish_ticks, operation::read, read_);
    for (std::size_t channel = 0; channel < channels_.size(); ++channel) {
      replay_reads(channel, pages, finish_ticks, sink);
    }
    return total();
  }

  template <class Sink = no_events>
  batch_times program(std::span<const location> pages, std::span<std::int64_t> finish_ticks = {},
                      Sink&& sink = {}) {
    begin(pages, finish_ticks, operation::program, program_);
    for (std::size_t channel = 0; channel < channels_.size(); ++channel) {
      replay_holds(channel, pages, finish_ticks, program_, scale_.page_transfer_ticks,
                   event_kind::program, sink);
    }
    return total();
  }

  // Erases the block of each location; the page coordinate must be inside the geometry and is
  // ignored otherwise.
  template <class Sink = no_events>
  batch_times erase(std::span<const location> blocks, std::span<std::int64_t> finish_ticks = {},
                    Sink&& sink = {}) {
    begin(blocks, finish_ticks, operation::erase, erase_);
    for (std::size_t channel = 0; channel < channels_.size(); ++channel) {
      replay_holds(channel, blocks, finish_ticks, erase_, 0, event_kind::erase, sink);
    }
    return total();
  }

 private:
  struct operation_ticks {
    std::vector<std::int64_t> cycles;  // [planes + 1] command cycles by number of planes
    std::int64_t array = 0;
  };

  template <class Cycles>
  operation_ticks durations(std::int64_t array_ps, Cycles cycles_ps) const {
    operation_ticks ticks{.cycles = {0}, .array = scale_.from_ps(array_ps)};
    for (std::int32_t p = 1; p <= geometry_.planes; ++p) {
      ticks.cycles.push_back(scale_.from_ps(cycles_ps(p)));
    }
    return ticks;
  }

  void begin(std::span<const location> pages, std::span<const std::int64_t> finish_ticks,
             operation what, const operation_ticks& ticks) {
    require(finish_ticks.empty() || finish_ticks.size() == pages.size(), [&] {
      return "flash timeline: finish_ticks must be empty or have one entry per page (" +
             std::to_string(pages.size()) + "), got " + std::to_string(finish_ticks.size());
    });
    // Even one page after the other stays inside 63 bits.
    const double longest = static_cast<double>(ticks.cycles.back()) +
                           static_cast<double>(ticks.array) +
                           static_cast<double>(scale_.page_transfer_ticks) * geometry_.planes;
    constexpr double most =
        0.99 * 9223372036854775807.0;  // of 2^63 - 1; the margin covers rounding to double
    require(static_cast<double>(pages.size() + 1) * longest < most, [&] {
      return "flash timeline: a batch of " + std::to_string(pages.size()) +
             " pages might overflow 63 bits of ticks (" + std::to_string(scale_.ticks_per_ps) +
             " a ps); split it, or choose a rounder bus_bytes_per_s";
    });
    queues_.sort(pages, what, rules_.pair, rules_.arrive);
    std::ranges::fill(channels_, channel_load{});
    std::ranges::fill(dies_, die_load{});
  }

  // Empties the in-flight FIFO and lets every die with a command wait for the bus.
  void begin_channel(std::size_t channel) {
    in_flight_.clear();
    ring_.clear(std::max(queues_.first_die(channel), 0));
    for (std::int32_t die = 0; die < geometry_.dies_per_channel(); ++die) {
      if (queues_.front(die_of_drive(channel, die)) != command_queues::nothing) {
        ring_.add(die);
      }
    }
  }

  std::size_t die_of_drive(std::size_t channel, std::int32_t die) const {
    return channel * static_cast<std::size_t>(geometry_.dies_per_channel()) +
           static_cast<std::size_t>(die);
  }

  // Takes the next command off its queue and starts it: cycles and data on the bus, then the array.
  flight& issue(std::size_t channel, std::int64_t now, const operation_ticks& ticks,
                std::int64_t data_ticks) {
    const std::int32_t die = ring_.take();
    const std::size_t on_drive = die_of_drive(channel, die);
    const std::int32_t command = queues_.front(on_drive);
    queues_.pop(on_drive);
    const std::int32_t pages = queues_.page_count(command);
    const std::int64_t cycles = ticks.cycles[static_cast<std::size_t>(pages)];
    channel_load& load = channels_[channel];
    load.command_ticks += cycles;
    load.data_ticks += pages * data_ticks;
    load.pages += pages;
    ++load.commands;
    load.multi_plane_commands += pages > 1 ? 1 : 0;
    dies_[on_drive].array_ticks += ticks.array;
    flight& started = in_flight_.push();
    started = {.command = command,
               .die = die,
               .begin = now,
               .ready = now + cycles + pages * data_ticks + ticks.array};
    return started;
  }

  // The oldest command lets its die go.
  void retire(std::size_t channel, std::int64_t now) {
    const flight& done = in_flight_.oldest();
    const std::size_t on_drive = die_of_drive(channel, done.die);
    dies_[on_drive].held_ticks += now - done.begin;
    channels_[channel].end_ticks = now;
    if (queues_.front(on_drive) != command_queues::nothing) {
      ring_.add(done.die);
    }
    in_flight_.pop();
  }

  template <class Sink>
  void replay_reads(std::size_t channel, std::span<const location> pages,
                    std::span<std::int64_t> finish_ticks, Sink& sink) {
    Arbitration bus = arbitration_;
    begin_channel(channel);
    std::int64_t now = 0;  // the bus is free from here on
    const std::int64_t transfer = scale_.page_transfer_ticks;
    while (true) {
      const bool data_waits = !in_flight_.empty() && in_flight_.oldest().ready <= now;
      const bool command_waits = !ring_.empty();
      if (data_waits && (!command_waits || bus.choose() == bus_turn::data_out)) {
        flight& sending = in_flight_.oldest();
        if (!finish_ticks.empty() || traced<Sink>) {
          const std::size_t page = queues_.page(sending.command, sending.next_page);
          if (!finish_ticks.empty()) {
            finish_ticks[page] = now + transfer;
          }
          report(sink, event_kind::data_out, pages, page, now, now + transfer);
        }
        now += transfer;
        channels_[channel].data_ticks += transfer;
        if (++sending.next_page == queues_.page_count(sending.command)) {
          retire(channel, now);
        }
      } else if (command_waits) {
        const flight& started = issue(channel, now, read_, 0);
        now = started.ready - read_.array;
        if constexpr (traced<Sink>) {
          report(sink, event_kind::command, pages, queues_.page(started.command, 0), started.begin,
                 now);
          report_array(sink, event_kind::array_read, pages, started.command, now, started.ready);
        }
      } else if (!in_flight_.empty()) {
        now = in_flight_.oldest().ready;
      } else {
        return;
      }
    }
  }

  // Program and erase: nothing comes back over the bus, so there is nothing to arbitrate.
  template <class Sink>
  void replay_holds(std::size_t channel, std::span<const location> pages,
                    std::span<std::int64_t> finish_ticks, const operation_ticks& ticks,
                    std::int64_t data_ticks, event_kind kind, Sink& sink) {
    begin_channel(channel);
    std::int64_t now = 0;
    while (true) {
      while (!in_flight_.empty() && in_flight_.oldest().ready <= now) {
        retire(channel, in_flight_.oldest().ready);
      }
      if (!ring_.empty()) {
        const flight& started = issue(channel, now, ticks, data_ticks);
        now = started.ready - ticks.array;
        const std::int32_t count = queues_.page_count(started.command);
        if (!finish_ticks.empty()) {
          for (std::int32_t k = 0; k < count; ++k) {
            finish_ticks[queues_.page(started.command, k)] = started.ready;
          }
        }
        if constexpr (traced<Sink>) {
          const std::int64_t data_begin = now - count * data_ticks;
          report(sink, event_kind::command, pages, queues_.page(started.command, 0), started.begin,
                 data_begin);
          for (std::int32_t k = 0; data_ticks > 0 && k < count; ++k) {
            const std::int64_t at = data_begin + k * data_ticks;
            report(sink, event_kind::data_in, pages, queues_.page(started.command, k), at,
                   at + data_ticks);
          }
          report_array(sink, kind, pages, started.command, now, started.ready);
        }
      } else if (!in_flight_.empty()) {
        now = in_flight_.oldest().ready;
      } else {
        return;
      }
    }
  }

  batch_times total() const {
    batch_times sum{.ticks_per_ps = scale_.ticks_per_ps, .channels = channels_, .dies = dies_};
    for (const channel_load& load : channels_) {
      sum.makespan_ticks = std::max(sum.makespan_ticks, load.end_ticks);
      sum.pages += load.pages;
      sum.commands += load.commands;
      sum.multi_plane_commands += load.multi_plane_commands;
    }
    return sum;
  }

  template <class Sink>
  void report_array(Sink& sink, event_kind kind, std::span<const location> pages,
                    std::int32_t command, std::int64_t begin, std::int64_t end) const {
    for (std::int32_t k = 0; k < queues_.page_count(command); ++k) {
      report(sink, kind, pages, queues_.page(command, k), begin, end);
    }
  }

  geometry geometry_;
  tick_scale scale_;
  batch_rules rules_;
  Arbitration arbitration_;
  operation_ticks read_, program_, erase_;
  command_queues queues_;
  die_ring ring_;
  flight_queue in_flight_;
  std::vector<channel_load> channels_;
  std::vector<die_load> dies_;
};

}  // namespace instinfer::flash
