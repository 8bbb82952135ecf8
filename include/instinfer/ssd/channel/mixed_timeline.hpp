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
#include "instinfer/ssd/channel/batch_times.hpp"
#include "instinfer/ssd/channel/io_request.hpp"
#include "instinfer/ssd/channel/mixed_channel.hpp"
#include "instinfer/ssd/channel/mixed_die.hpp"
#include "instinfer/ssd/channel/mixed_rules.hpp"
#include "instinfer/ssd/channel/operation_ticks.hpp"
#include "instinfer/ssd/channel/request_queues.hpp"
#include "instinfer/ssd/report/events.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/suspension.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// The model: operations as in timeline.hpp. Each time the bus is free, all that has happened by then is known, and the bus goes to
// - the data-out of highest priority, among those the one that was ready first, then issued first; or
// - the command of highest priority, round robin over the dies after the last one that got a command. A free die asks for
//   its oldest request of highest priority, with those that pair; suspend and resume are commands too (suspension.hpp), with
//   the priority of the waiting read and of the suspended operation.
// Of the two the higher priority goes first; the arbitration decides between equals. A command that is on its way is never
// interrupted, nor is a data-out; between the pages of one read others may go. With cache read (cache_registers.hpp) a die
// takes its next read while the last one leaves; a program or erase waits until both registers are empty. Reads on a die that
// has suspended something are plain: the program keeps a register (assumed). Nothing orders a read after a program or erase
// of the same page but the caller.
//
// Requests that all arrive at 0 with one priority and one array_operation take the very ticks of a batch that arrives together.
// O(dies of the channel) a bus grant.
template <class Arbitration = data_out_first>
class mixed_timeline {
  static_assert(BusArbitration<Arbitration>,
                "instinfer: a bus arbitration needs choose() -> bus_turn and must be copyable, see "
                "ssd/channel/arbitration.hpp");

 public:
  // Throws bad_argument for an invalid geometry, timing, retry or suspension, error if a duration
  // does not fit 63 bits of ticks.
  mixed_timeline(const geometry& g, const timing& t, const mixed_rules& rules = {},
                 Arbitration arbitration = {})
      : ticks_{g, t, rules.retry},
        suspend_{rules.suspend, ticks_.scale()},
        pair_{rules.pair},
        cache_read_{rules.cache_read},
        arbitration_{arbitration},
        channel_{g, suspend_},
        channel_loads_(static_cast<std::size_t>(g.channels)),
        die_loads_(static_cast<std::size_t>(g.dies_total())) {}

  const tick_scale& scale() const { return ticks_.scale(); }
  const geometry& shape() const { return ticks_.shape(); }

  // requests: by arrival. finish_ticks: empty, or one entry per request: when its data-out is decoded
  // (read) or its array time over, since time 0. Throws bad_argument for another length, what
  // request_queues::sort refuses, or ticks that might not fit 63 bits; finish_ticks is then untouched.
  // Allocates only while streams still grow.
  template <class Sink = no_events>
  batch_times run(std::span<const io_request> requests, std::span<std::int64_t> finish_ticks = {},
                  Sink&& sink = {}) {
    static_assert(
        EventSink<Sink>,
        "instinfer: an event sink must be callable with const event&, see ssd/report/events.hpp");
    require(finish_ticks.empty() || finish_ticks.size() == requests.size(), [&] {
      return "flash requests: finish_ticks must be empty or have one entry per request (" +
             std::to_string(requests.size()) + "), got " + std::to_string(finish_ticks.size());
    });
    check_range(requests);
    channel_.sort(requests, pair_, scale().ticks_per_ps);
    finish_ = finish_ticks;
    std::ranges::fill(channel_loads_, channel_load{});
    std::ranges::fill(die_loads_, die_load{});
    batch_times sum{
        .ticks_per_ps = scale().ticks_per_ps, .channels = channel_loads_, .dies = die_loads_};
    for (number_ = 0; number_ < shape().channels; ++number_) {
      channel_.begin(number_);
      replay(sink);
      sum.add(load());
    }
    return sum;
  }

 private:
  using phase = mixed_die::phase;
  using command = mixed_channel::command;

  template <class Sink>
  void replay(Sink& sink) {
    Arbitration bus = arbitration_;
    std::int64_t now = 0;       // the bus is free from here on
    std::int32_t next_die = 0;  // at which the round robin goes on
    while (true) {
      channel_.admit(now);
      settle(now, sink);
      const auto data = channel_.best_data_out();
      const auto next = channel_.next_command(now, next_die);
      if (data && (!next || data->priority < next->priority ||
                   (data->priority == next->priority && bus.choose() == bus_turn::data_out))) {
        now = send(data->die, now, sink);
      } else if (next) {
        next_die = next->die + 1;
        now = next->kind == command::start     ? start(next->die, now, sink)
              : next->kind == command::suspend ? suspend(next->die, now, sink)
                                               : resume(next->die, now, sink);
      } else {
        const std::int64_t soonest = channel_.next_change(now);
        if (soonest == request_queues::never) {
          return;
        }
        now = soonest;
      }
    }
  }

  // Arrays and suspensions that are over by now.
  template <class Sink>
  void settle(std::int64_t now, Sink& sink) {
    for (std::int32_t d = 0; d < channel_.count(); ++d) {
      mixed_die& die = channel_.die(d);
      if (die.at == phase::suspending && die.until <= now) {
        die.at = phase::idle;
      } else if (die.at == phase::array && die.until <= now) {
        end_run(d, die.until, sink);
        if (die.work.what == array_operation::read && cache_read_ && !die.suspended) {
          die.at = phase::full;
        } else if (die.work.what == array_operation::read) {
          die.at = phase::data_out;
        } else {
          for (const std::int32_t i : channel_.pages_of(d)) {
            finish(i, die.until);
          }
          die.at = phase::idle;
          let_go(d, die.until);
        }
      }
      if (die.at == phase::full && !die.leaves) {
        die.move(ticks_.cache_move());
      }
      if (die.at == phase::moving && die.until <= now) {
        die.end_move();
      }
    }
  }

  template <class Sink>
  std::int64_t start(std::int32_t d, std::int64_t now, Sink& sink) {
    mixed_die& die = channel_.die(d);
    if (die.free()) {
      die.held_since = now;
    }
    channel_.take(d);
    die.work.issue = load().commands++;
    load().pages += die.work.pages;
    load().multi_plane_commands += die.work.pages > 1 ? 1 : 0;

    const array_operation what = die.work.what;
    const std::int64_t cycles = ticks_.cycles(what, die.work.pages);
    const std::int64_t data = what == array_operation::program ? ticks_.transfer() : 0;
    tell(sink, event_kind::command, channel_.pages_of(d)[0], now, now + cycles);
    std::int64_t end = now + cycles;
    std::int64_t array = 0;
    for (const std::int32_t i : channel_.pages_of(d)) {
      if (data > 0) {
        tell(sink, event_kind::data_in, i, end, end + data);
      }
      end += data;
      array = std::max(array, ticks_.array(what, channel_.of(i).where));
    }
    load().command_ticks += cycles;
    load().data_ticks += end - now - cycles;
    die.run_array(end, array);
    die.suspend_from = 0;
    return end;
  }

  template <class Sink>
  std::int64_t suspend(std::int32_t d, std::int64_t now, Sink& sink) {
    mixed_die& die = channel_.die(d);
    const std::int64_t end = now + suspend_.command();
    end_run(d, end, sink);
    tell(sink, event_kind::suspend, channel_.pages_of(d)[0], now, end);
    die.parked = die.work;
    die.parked.left = die.until - end;
    die.suspended = true;
    die.at = phase::suspending;
    die.until = end + suspend_.latency(die.work.what);
    load().command_ticks += suspend_.command();
    ++load().suspensions;
    return end;
  }

  template <class Sink>
  std::int64_t resume(std::int32_t d, std::int64_t now, Sink& sink) {
    mixed_die& die = channel_.die(d);
    const std::int64_t end = now + suspend_.command();
    die.work = die.parked;
    die.suspended = false;
    tell(sink, event_kind::resume, channel_.pages_of(d)[0], now, end);
    die.run_array(end + suspend_.resume(), die.work.left);
    die.suspend_from = die.array_begin + suspend_.least_run();
    load().command_ticks += suspend_.command();
    return end;
  }

  template <class Sink>
  std::int64_t send(std::int32_t d, std::int64_t now, Sink& sink) {
    mixed_die& die = channel_.die(d);
    die_work& read = die.data();
    const std::int32_t i = channel_.pages_of(d, read)[static_cast<std::size_t>(read.next_page++)];
    const std::int64_t transfer = ticks_.transfer(channel_.of(i).codewords);
    const std::int64_t end = now + transfer;
    tell(sink, event_kind::data_out, i, now, end);
    load().data_ticks += transfer;
    finish(i, end + ticks_.decode());
    if (read.next_page == read.pages) {
      die.end_data(end);
      let_go(d, end);
    }
    return end;
  }

  template <class Sink>
  void end_run(std::int32_t d, std::int64_t end, Sink& sink) {
    const mixed_die& die = channel_.die(d);
    die_loads_[on_drive(d)].array_ticks += end - die.array_begin;
    const event_kind kind = die.work.what == array_operation::read      ? event_kind::array_read
                            : die.work.what == array_operation::program ? event_kind::program
                                                                        : event_kind::erase;
    for (const std::int32_t i : channel_.pages_of(d)) {
      tell(sink, kind, i, die.array_begin, end);
    }
  }
  void let_go(std::int32_t d, std::int64_t end) {
    if (channel_.die(d).free()) {
      die_loads_[on_drive(d)].held_ticks += end - channel_.die(d).held_since;
    }
  }
  void finish(std::int32_t i, std::int64_t end) {
    load().end_ticks = std::max(load().end_ticks, end);
    if (!finish_.empty()) {
      finish_[static_cast<std::size_t>(i)] = end;
    }
  }

  template <class Sink>
  void tell(Sink& sink, event_kind kind, std::int32_t i, std::int64_t begin,
            std::int64_t end) const {
    if constexpr (traced<Sink>) {
      const location& l = channel_.of(i).where;
      sink(event{kind, l.channel, l.chip, l.die, l.plane, static_cast<std::size_t>(i), begin, end});
    }
  }

  // Even one request after the other, each suspending and resuming another, stays inside 63 bits.
  void check_range(std::span<const io_request> requests) const {
    const double longest =
        std::max({ticks_.longest(array_operation::read), ticks_.longest(array_operation::program),
                  ticks_.longest(array_operation::erase)}) +
        suspend_.longest();
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

  channel_load& load() { return channel_loads_[static_cast<std::size_t>(number_)]; }
  std::size_t on_drive(std::int32_t d) const {
    return static_cast<std::size_t>(number_ * shape().dies_per_channel() + d);
  }

  operation_ticks ticks_;
  suspension_ticks suspend_;
  pairing pair_;
  bool cache_read_;
  Arbitration arbitration_;
  mixed_channel channel_;
  std::vector<channel_load> channel_loads_;
  std::vector<die_load> die_loads_;
  std::span<std::int64_t> finish_;
  std::int32_t number_ = 0;  // of the channel
};

}  // namespace instinfer::flash
