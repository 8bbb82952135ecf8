#pragma once
// Replays one flash channel, a grant of its bus at a time, in exact ticks: the rules of the bus and of the dies behind it.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "instinfer/ssd/channel/arbitration.hpp"
#include "instinfer/ssd/channel/array_suspensions.hpp"
#include "instinfer/ssd/channel/cache_registers.hpp"
#include "instinfer/ssd/channel/channel_statistics.hpp"
#include "instinfer/ssd/channel/command_events.hpp"
#include "instinfer/ssd/channel/die_ring.hpp"
#include "instinfer/ssd/channel/replay_work.hpp"
#include "instinfer/ssd/channel/event_queue.hpp"
#include "instinfer/ssd/channel/flight_queue.hpp"
#include "instinfer/ssd/report/events.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"

namespace instinfer::flash {

// When there may be something to grant again, if nothing comes before.
struct bus_grant {
  std::int64_t next = never_ticks;
  bool stalled = false;  // data waits, and may not be sent
};

// The rules.
// - read: command cycles RC(p) on the bus; the array, bus free; p data-outs, a bus grant each; each page is there when it is
//   decoded.
// - program: one bus grant for command cycles PC(p) and p pages of data; the array.
// - erase: command cycles EC(p) on the bus; the array.
// Array times: tR and tPROG by page type (page_types.hpp), tR times one plus the page's retries (read_retry.hpp).
//
// A die takes no command from the first command cycle of one to the end of its last data-out (read) or of its array time
// (program, erase). So a read never overlaps with its own data-out. With drive_rules::cache_read it does
// (cache_registers.hpp); a program or erase then waits until both registers are empty. The other dies of a chip go on: only
// the bus is shared.
//
// Each time the bus is free, all that has happened by then is known: an array that ends at the tick of a release is ready.
// The bus goes to
// - the data-out of highest priority, among those the one that was ready first, then issued first; or
// - the command of highest priority, round robin over the dies after the last one that got a command (die_ring.hpp). A die
//   asks for its oldest pages of highest priority (command_queues.hpp). Suspend and resume are commands too
//   (suspension.hpp), with the priority of the waiting read and of the suspended operation.
// Of the two the higher priority goes first; the arbitration decides between equals. Nothing on the bus is interrupted;
// between the pages of one read others may go. Reads on a die that has suspended something are plain: the program keeps a
// register (assumed).
//
// Mixed: pages differ in operation and priority. Dies are then asked anew at each grant, O(dies); otherwise a grant is O(1).
template <class Arbitration, bool Mixed = false>
class channel_replay {
  static_assert(BusArbitration<Arbitration>,
                "instinfer: a bus arbitration needs choose() -> bus_turn and must be copyable, see "
                "ssd/channel/arbitration.hpp");

 public:
  channel_replay(const replay_work<Mixed>& work, const Arbitration& arbitration)
      : arbitration_{arbitration},
        bus_{arbitration},
        dies_(static_cast<std::size_t>(work.ticks.shape().dies_per_channel())),
        statistics_{count()},
        ring_{count()},
        in_flight_{count()},
        registers_{work.cache_read ? count() : 0},
        suspensions_{Mixed ? count() : 0, work.ticks.suspend()} {}

  // The channel is idle at tick 0. What is in the queues of its dies waits; the first turn starts at `first_die`.
  template <class Work>
  void begin(std::int32_t channel, const Work& work, std::int32_t first_die = 0) {
    bus_ = arbitration_;
    first_die_ = static_cast<std::size_t>(channel) * dies_.size();
    free_at_ = 0;
    statistics_.begin();
    std::ranges::fill(dies_, die_state::idle);
    ring_.clear(first_die);
    in_flight_.clear();
    registers_.clear();
    suspensions_.clear();
    for (std::int32_t die = 0; !Mixed && die < count(); ++die) {
      free_die(die, work);
    }
  }

  // A page has come to the queue of the die.
  void come(std::int32_t die) {
    if (!Mixed && at(die) == die_state::idle) {
      at(die) = die_state::asks;
      ring_.add(die);
    }
  }

  // When the bus is free, as far as it is granted.
  std::int64_t free_at() const { return free_at_; }
  // Whether a command has begun that is neither done nor suspended.
  bool is_active() const { return !in_flight_.empty(); }

  // Grants the bus at `now`, when it is free: to data only if what is behind it has room. finish(page, tick): a page is
  // decoded, programmed or erased at that tick. For Sink see ssd/report/events.hpp. Precondition: now does not fall, and is
  // no later than what the last grant and what has come since ask for.
  template <class Work, class Finish, class Sink>
  bus_grant grant(std::int64_t now, bool has_room, Work& work, Finish&& finish, Sink& sink) {
    if (Mixed || work.has_cache_read() || work.what(0) != array_operation::read) {
      settle(now, work, finish, sink);
    }
    std::int32_t priority = 0;  // of the dies in the ring
    if constexpr (Mixed) {
      priority = ask_dies(now, work);
    }
    const bool data_waits = !in_flight_.empty() && in_flight_.next_to_send().ready <= now;
    if (data_waits && has_room && (ring_.empty() || data_goes_before(priority))) {
      send(now, work, finish, sink);
      return {.next = free_at_};
    }
    if (!ring_.empty()) {
      command(ring_.take(), now, work, sink);
      return {.next = free_at_};
    }
    if (data_waits) {
      // Only a move to a cache register frees a die now.
      return {.next = work.has_cache_read() ? next_change(now) : never_ticks, .stalled = true};
    }
    return {.next = next_change(now)};
  }

  const channel_statistics& statistics() const { return statistics_; }

 private:
  enum class die_state : std::uint8_t { idle, asks, busy };  // asks: is in the ring, unless Mixed
  enum class command_kind { start, suspend, resume };
  struct offer {
    command_kind kind;
    std::int32_t priority;
  };

  std::int32_t count() const { return static_cast<std::int32_t>(dies_.size()); }
  die_state& at(std::int32_t die) { return dies_[static_cast<std::size_t>(die)]; }
  const die_state& at(std::int32_t die) const { return dies_[static_cast<std::size_t>(die)]; }
  std::size_t on_drive(std::int32_t die) const {
    return first_die_ + static_cast<std::size_t>(die);
  }
  // Whether the die's reads leave by its cache register.
  template <class Work>
  bool is_cached(std::int32_t die, const Work& work) const {
    return work.has_cache_read() && !(Mixed && suspensions_.suspended(die));
  }

  bool data_goes_before(std::int32_t priority) {
    if constexpr (Mixed) {
      const std::int32_t data = in_flight_.next_to_send().priority;
      if (data != priority) {
        return data < priority;
      }
    }
    return bus_.choose() == bus_turn::data_out;
  }

  // What is over by now: array times, moves to cache registers, suspensions. Without it the data of plain reads waits as
  // well, and their dies are not free before it has gone.
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

  // A program's or erase's array time is over.
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

  // Sends one page of the oldest data.
  template <class Work, class Finish, class Sink>
  void send(std::int64_t now, const Work& work, Finish& finish, Sink& sink) {
    flight& sending = in_flight_.next_to_send();
    const std::size_t page = work.queues.page(sending.command, sending.next_page);
    const std::int64_t transfer = work.transfer_ticks(page);
    free_at_ = now + transfer;
    statistics_.data_out(transfer);
    report(sink, event_kind::data_out, work.pages, page, now, free_at_);
    finish(page, free_at_ + work.ticks.decode());
    if (++sending.next_page == work.queues.page_count(sending.command)) {
      const std::int32_t die = sending.die;
      in_flight_.sent();
      statistics_.end(die, free_at_, free_at_ + work.ticks.decode());
      if (!is_cached(die, work)) {
        free_die(die, work);
      } else if (const auto next = registers_.leave(die, free_at_, work.ticks.cache_move())) {
        in_flight_.add(*next);
      }
    }
  }

  template <class Work, class Sink>
  void command(std::int32_t die, std::int64_t now, Work& work, Sink& sink) {
    if constexpr (Mixed) {
      const command_kind kind = offer_of(die, now, work)->kind;
      if (kind == command_kind::suspend) {
        suspend(die, now, work, sink);
        return;
      }
      if (kind == command_kind::resume) {
        resume(die, now, work, sink);
        return;
      }
    }
    start(die, now, work, sink);
  }

  // Command cycles, a program's data, then the array.
  template <class Work, class Sink>
  void start(std::int32_t die, std::int64_t now, Work& work, Sink& sink) {
    const std::int32_t command = work.queues.head(on_drive(die));
    work.queues.pop(on_drive(die));
    const std::int32_t pages = work.queues.page_count(command);
    const array_operation what = work.what(command);
    const std::int64_t cycles_end = now + work.ticks.cycles(what, pages);
    const std::int64_t data_in = what == array_operation::program ? work.ticks.transfer() : 0;
    const std::int64_t array = work.array_ticks(command);
    free_at_ = cycles_end + pages * data_in;
    const flight started{.command = command,
                   .die = die,
                   .issue = static_cast<std::int32_t>(statistics_.load().commands),
                   .priority = work.queues.priority(command),
                   .ready = free_at_ + array};

    statistics_.start(die, pages, now, cycles_end, free_at_);
    statistics_.array_works(die, array);
    at(die) = die_state::busy;
    report_cycles(sink, event_kind::command, work, command, now, cycles_end);
    report_data_in(sink, work, command, cycles_end, data_in);
    if (Mixed && what != array_operation::read) {
      suspensions_.start(started, what, free_at_);
    } else {
      report_array(sink, work, command, free_at_, started.ready);
    }
    if (what != array_operation::read || !is_cached(die, work)) {
      in_flight_.add(started);
    } else if (const auto read = registers_.enter(started, work.ticks.cache_move())) {
      in_flight_.add(*read);
    }
  }

  // Mixed: the ring gets the dies that ask with the highest priority. Returns it.
  template <class Work>
  std::int32_t ask_dies(std::int64_t now, const Work& work) {
    std::int32_t highest = max_priorities;
    ring_.remove_all();
    for (std::int32_t die = 0; die < count(); ++die) {
      const std::optional<offer> wish = offer_of(die, now, work);
      if (wish && wish->priority < highest) {
        highest = wish->priority;
        ring_.remove_all();
      }
      if (wish && wish->priority == highest) {
        ring_.add(die);
      }
    }
    return highest;
  }

  // What the die would have the bus for, if anything.
  template <class Work>
  std::optional<offer> offer_of(std::int32_t die, std::int64_t now, const Work& work) const {
    const std::int32_t head = work.queues.head(on_drive(die));
    const bool waits = head != work.queues.nothing;
    const bool read_waits = waits && work.what(head) == array_operation::read;
    const std::int32_t priority = waits ? work.queues.priority(head) : max_priorities;
    const bool idle = at(die) == die_state::idle;
    if (idle && suspensions_.suspended(die)) {
      const std::int32_t suspended = suspensions_.work(die).priority;
      return read_waits && priority < suspended ? offer{command_kind::start, priority}
                                                : offer{command_kind::resume, suspended};
    }
    if (idle && waits && (read_waits || statistics_.commands_on(die) == 0)) {
      return offer{command_kind::start, priority};
    }
    if (!idle && read_waits && suspensions_.may_suspend(die, priority, now)) {
      return offer{command_kind::suspend, priority};
    }
    return std::nullopt;
  }

  template <class Work, class Sink>
  void suspend(std::int32_t die, std::int64_t now, const Work& work, Sink& sink) {
    free_at_ = now + suspensions_.cycles();
    flight f = in_flight_.remove(die);
    report_array(sink, work, f.command, suspensions_.run_begin(die), free_at_);
    report_cycles(sink, event_kind::suspend, work, f.command, now, free_at_);
    f.ready = suspensions_.suspend(die, free_at_);
    in_flight_.add(f);
    statistics_.array_works(die, -suspensions_.left(die));
    statistics_.suspend(suspensions_.cycles());
  }

  template <class Work, class Sink>
  void resume(std::int32_t die, std::int64_t now, const Work& work, Sink& sink) {
    free_at_ = now + suspensions_.cycles();
    const flight f = suspensions_.resume(die, free_at_);
    report_cycles(sink, event_kind::resume, work, f.command, now, free_at_);
    at(die) = die_state::busy;
    in_flight_.add(f);
    statistics_.array_works(die, suspensions_.left(die));
    statistics_.resume(suspensions_.cycles());
  }

  std::int64_t next_change(std::int64_t now) const {
    std::int64_t next = in_flight_.any_works() ? in_flight_.next_ready().ready : never_ticks;
    if constexpr (Mixed) {
      next = std::min(next, suspensions_.next_chance(now));
    }
    return next;
  }

  Arbitration arbitration_;  // as each replay starts with it
  Arbitration bus_;
  std::size_t first_die_ = 0;  // of the channel, on the drive
  std::int64_t free_at_ = 0;
  std::vector<die_state> dies_;
  channel_statistics statistics_;
  die_ring ring_;
  flight_queue in_flight_;
  cache_registers registers_;
  array_suspensions suspensions_;
};

}  // namespace instinfer::flash
