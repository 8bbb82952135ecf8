#pragma once
// The dies behind the bus of one channel: what a grant does to them, and what they ask the bus for.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "instinfer/ssd/channel/array_suspensions.hpp"
#include "instinfer/ssd/channel/bus_request.hpp"
#include "instinfer/ssd/channel/cache_registers.hpp"
#include "instinfer/ssd/channel/channel_statistics.hpp"
#include "instinfer/ssd/channel/command_events.hpp"
#include "instinfer/ssd/channel/die_ring.hpp"
#include "instinfer/ssd/channel/flight_queue.hpp"
#include "instinfer/ssd/channel/io_request.hpp"
#include "instinfer/ssd/channel/replay_work.hpp"
#include "instinfer/ssd/report/events.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// The rules.
// - read: command cycles RC(p) on the bus; the array, while the bus is free; p data-outs, each with
//   a grant of its own. A page is done when it is decoded.
// - program: one grant for command cycles PC(p) and p pages of data; the array.
// - erase: command cycles EC(p) on the bus; the array.
// Array times are tR and tPROG by page type (page_types.hpp). Retries multiply tR (read_retry.hpp).
//
// A die takes no command from the first cycle of one until the end of its last data-out (read) or
// of its array time (program, erase). So a read does not overlap with its own data-out. It does
// with drive_rules::cache_read (cache_registers.hpp); a program or erase then waits until both
// registers are empty. Reads on a die that has suspended an operation do not use the cache
// register, because the operation keeps one register (assumed). Dies of one chip share nothing but
// the bus.
//
// Work is replay_work or plain_reads. finish(page, tick): a page is decoded, programmed or erased
// at that tick. For Sink see ssd/report/events.hpp.
//
// Mixed: pages differ in operation and priority, and ask() puts dies into the round robin.
// Otherwise a die joins it when it is idle and has a command.
template <bool Mixed>
class channel_dies {
 public:
  explicit channel_dies(const replay_work<Mixed>& work)
      : states_(static_cast<std::size_t>(work.ticks.shape().dies_per_channel())),
        statistics_{count()},
        ring_{count()},
        in_flight_{count()},
        registers_{work.cache_read ? count() : 0},
        suspensions_{Mixed ? count() : 0, work.ticks.suspend()} {}

  // All dies are idle. Commands in their queues wait for the bus. The round robin starts at
  // `first_die`.
  template <class Work>
  void begin(std::int32_t channel, const Work& work, std::int32_t first_die) {
    first_die_ = static_cast<std::size_t>(channel) * states_.size();
    statistics_.begin();
    std::fill(states_.begin(), states_.end(), die_state::idle);
    ring_.clear(first_die);
    in_flight_.clear();
    registers_.clear();
    suspensions_.clear();
    for (std::int32_t die = 0; !Mixed && die < count(); ++die) {
      free_die(die, work);
    }
  }

  // A page has come to the queue of a die.
  void come(std::int32_t die) {
    if (!Mixed && at(die) == die_state::idle) {
      at(die) = die_state::asks;
      ring_.add(die);
    }
  }

  // Ends everything that is over by now: array times, moves to cache registers, suspensions. Plain
  // reads need no call: their data waits without it, and their dies stay busy.
  template <class Work, class Finish, class Sink>
  void settle(std::int64_t now, const Work& work, Finish& finish, Sink& sink) {
    while (in_flight_.any_works() && in_flight_.next_ready().ready <= now) {
      const flight& over = in_flight_.next_ready();
      const std::int32_t die = over.die;
      if (Mixed && suspensions_.suspending(die)) {
        suspensions_.take_commands(die);
        in_flight_.end();
        free_die(die, work);
      } else if (work.what(over.command) == array_operation::read) {
        if (is_cached(die, work)) {
          free_die(die, work);
        }
        in_flight_.wait();
      } else {
        end_write(flight{over}, work, finish, sink);
      }
    }
  }

  // Mixed: puts the dies that ask with the highest priority into the ring. Returns this priority.
  template <class Work>
  std::int32_t ask(std::int64_t now, const Work& work) {
    std::int32_t highest = max_priorities;
    ring_.remove_all();
    for (std::int32_t die = 0; die < count(); ++die) {
      const std::optional<bus_request> request = request_of(die, now, work);
      if (request && request->priority < highest) {
        highest = request->priority;
        ring_.remove_all();
      }
      if (request && request->priority == highest) {
        ring_.add(die);
      }
    }
    return highest;
  }
  bool command_waits() const { return !ring_.empty(); }
  bool data_waits(std::int64_t now) const {
    return !in_flight_.empty() && in_flight_.next_to_send().ready <= now;
  }
  // Of the data that goes next. Precondition: data_waits(now).
  std::int32_t data_priority() const { return in_flight_.next_to_send().priority; }

  // Sends the next page. Returns the end on the bus. Precondition: data_waits(now).
  template <class Work, class Finish, class Sink>
  std::int64_t send(std::int64_t now, const Work& work, Finish& finish, Sink& sink) {
    flight& sending = in_flight_.next_to_send();
    const std::size_t page = work.queues.page(sending.command, sending.next_page);
    const std::int64_t transfer = work.transfer_ticks(page);
    const std::int64_t end = now + transfer;
    statistics_.data_out(transfer);
    report(sink, event_kind::data_out, work.pages, page, now, end);
    finish(page, end + work.ticks.decode());
    if (++sending.next_page == work.queues.page_count(sending.command)) {
      const std::int32_t die = sending.die;
      in_flight_.sent();
      statistics_.end(die, end, end + work.ticks.decode());
      if (!is_cached(die, work)) {
        free_die(die, work);
      } else if (const auto next = registers_.leave(die, end, work.ticks.cache_move())) {
        in_flight_.add(*next);
      }
    }
    return end;
  }

  // Starts, suspends or resumes a command of the next die in turn. Returns the end on the bus.
  // Precondition: command_waits().
  template <class Work, class Sink>
  std::int64_t command(std::int64_t now, Work& work, Sink& sink) {
    const std::int32_t die = ring_.take();
    if constexpr (Mixed) {
      const command_kind kind = request_of(die, now, work)->kind;
      if (kind == command_kind::suspend) {
        return suspend(die, now, work, sink);
      }
      if (kind == command_kind::resume) {
        return resume(die, now, work, sink);
      }
    }
    return start(die, now, work, sink);
  }

  // When an array, move or suspension ends next, or an array may first be suspended; or
  // never_ticks.
  std::int64_t next_change(std::int64_t now) const {
    std::int64_t next = in_flight_.any_works() ? in_flight_.next_ready().ready : never_ticks;
    if constexpr (Mixed) {
      next = std::min(next, suspensions_.next_chance(now));
    }
    return next;
  }

  // Whether a command has begun that is neither done nor suspended.
  bool active() const { return !in_flight_.empty(); }
  const channel_statistics& statistics() const { return statistics_; }

 private:
  enum class die_state : std::uint8_t { idle, asks, busy };  // asks: in the ring; not if Mixed

  std::int32_t count() const { return static_cast<std::int32_t>(states_.size()); }
  die_state& at(std::int32_t die) { return states_[static_cast<std::size_t>(die)]; }
  const die_state& at(std::int32_t die) const { return states_[static_cast<std::size_t>(die)]; }
  std::size_t on_drive(std::int32_t die) const {
    return first_die_ + static_cast<std::size_t>(die);
  }
  // Whether reads of the die leave through its cache register.
  template <class Work>
  bool is_cached(std::int32_t die, const Work& work) const {
    return work.has_cache_read() && !(Mixed && suspensions_.suspended(die));
  }

  // The array time of a program or erase is over.
  template <class Work, class Finish, class Sink>
  void end_write(const flight& done, const Work& work, Finish& finish, Sink& sink) {
    for (std::int32_t k = 0; k < work.queues.page_count(done.command); ++k) {
      finish(work.queues.page(done.command, k), done.ready);
    }
    if constexpr (Mixed) {
      report_array(sink, work, done.command, suspensions_.run_begin(done.die), done.ready);
      suspensions_.end(done.die);
    }
    in_flight_.end();
    statistics_.end(done.die, done.ready, done.ready);
    free_die(done.die, work);
  }

  // The die takes commands again.
  template <class Work>
  void free_die(std::int32_t die, const Work& work) {
    at(die) = die_state::idle;
    if (!Mixed && work.queues.head(on_drive(die)) != work.queues.nothing) {
      at(die) = die_state::asks;
      ring_.add(die);
    }
  }

  // Command cycles, the data of a program, then the array.
  template <class Work, class Sink>
  std::int64_t start(std::int32_t die, std::int64_t now, Work& work, Sink& sink) {
    const std::int32_t command = work.queues.head(on_drive(die));
    work.queues.pop(on_drive(die));
    const std::int32_t pages = work.queues.page_count(command);
    const array_operation what = work.what(command);
    const std::int64_t cycles_end = now + work.ticks.cycles(what, pages);
    const std::int64_t data_in = what == array_operation::program ? work.ticks.transfer() : 0;
    const std::int64_t array = work.array_ticks(command);
    const std::int64_t end = cycles_end + pages * data_in;
    const flight started{.command = command,
                         .die = die,
                         .issue = static_cast<std::int32_t>(statistics_.load().commands),
                         .priority = work.queues.priority(command),
                         .ready = end + array};

    statistics_.start(die, pages, now, cycles_end, end);
    statistics_.array_works(die, array);
    at(die) = die_state::busy;
    report_cycles(sink, event_kind::command, work, command, now, cycles_end);
    report_data_in(sink, work, command, cycles_end, data_in);
    if (Mixed && what != array_operation::read) {
      suspensions_.start(started, what, end);
    } else {
      report_array(sink, work, command, end, started.ready);
    }
    if (what != array_operation::read || !is_cached(die, work)) {
      in_flight_.add(started);
    } else if (const auto read = registers_.enter(started, work.ticks.cache_move())) {
      in_flight_.add(*read);
    }
    return end;
  }

  template <class Work>
  std::optional<bus_request> request_of(std::int32_t die, std::int64_t now,
                                        const Work& work) const {
    const std::int32_t head = work.queues.head(on_drive(die));
    std::optional<waiting_command> next;
    if (head != work.queues.nothing) {
      next = {work.what(head), work.queues.priority(head)};
    }
    return bus_request_of(die, at(die) == die_state::busy, statistics_.commands_on(die) == 0, next,
                          suspensions_, now);
  }

  template <class Work, class Sink>
  std::int64_t suspend(std::int32_t die, std::int64_t now, const Work& work, Sink& sink) {
    const std::int64_t end = now + suspensions_.cycles();
    flight f = in_flight_.remove(die);
    report_array(sink, work, f.command, suspensions_.run_begin(die), end);
    report_cycles(sink, event_kind::suspend, work, f.command, now, end);
    f.ready = suspensions_.suspend(die, end);
    in_flight_.add(f);
    statistics_.array_works(die, -suspensions_.left(die));
    statistics_.suspend(suspensions_.cycles());
    return end;
  }

  template <class Work, class Sink>
  std::int64_t resume(std::int32_t die, std::int64_t now, const Work& work, Sink& sink) {
    const std::int64_t end = now + suspensions_.cycles();
    const flight f = suspensions_.resume(die, end);
    report_cycles(sink, event_kind::resume, work, f.command, now, end);
    at(die) = die_state::busy;
    in_flight_.add(f);
    statistics_.array_works(die, suspensions_.left(die));
    statistics_.resume(suspensions_.cycles());
    return end;
  }

  std::size_t first_die_ = 0;  // of the channel, on the drive
  std::vector<die_state> states_;
  channel_statistics statistics_;
  die_ring ring_;
  flight_queue in_flight_;
  cache_registers registers_;
  array_suspensions suspensions_;
};

}  // namespace instinfer::flash
