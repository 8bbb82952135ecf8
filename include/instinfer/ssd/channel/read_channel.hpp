#pragma once
// One channel's page reads as they come over time, one grant of its bus a step: the rules of timeline.hpp, for a replay in
// which channels and what is behind them depend on each other.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "instinfer/ssd/channel/arbitration.hpp"
#include "instinfer/ssd/channel/batch_times.hpp"
#include "instinfer/ssd/channel/cache_registers.hpp"
#include "instinfer/ssd/channel/command_queues.hpp"
#include "instinfer/ssd/channel/die_ring.hpp"
#include "instinfer/ssd/channel/event_queue.hpp"
#include "instinfer/ssd/channel/flight_queue.hpp"
#include "instinfer/ssd/channel/operation_ticks.hpp"
#include "instinfer/ssd/report/events.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

// What was granted, if anything: sent_page is a page whose data is on the bus until `next`.
struct bus_grant {
  static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();
  std::int64_t next = never_ticks;  // when there may be something to grant, if nothing comes before
  std::size_t sent_page = none;
  bool stalled = false;  // data waits, and may not be sent
};

// What a replay reads: where each page lies, and how many of its codewords cross the bus (codewords.hpp; empty: all).
struct read_list {
  std::span<const location> pages;
  std::span<const std::int32_t> codewords;
};

template <class Arbitration>
class read_channel {
 public:
  read_channel(std::int32_t number, const geometry& g, bool cache_read,
               const Arbitration& arbitration)
      : arbitration_{arbitration},
        bus_{arbitration},
        first_die_{static_cast<std::size_t>(number) *
                   static_cast<std::size_t>(g.dies_per_channel())},
        cache_read_{cache_read},
        dies_(static_cast<std::size_t>(g.dies_per_channel())),
        die_loads_(static_cast<std::size_t>(g.dies_per_channel())),
        ring_{g.dies_per_channel()},
        in_flight_{g.dies_per_channel()},
        registers_{cache_read ? g.dies_per_channel() : 0} {}

  void begin() {
    bus_ = arbitration_;
    load_ = {};
    active_ticks_ = stalled_ticks_ = 0;
    stalled_since_ = never_ticks;
    outstanding_ = 0;
    bus_free_ = 0;
    std::ranges::fill(dies_, die_state::idle);
    std::ranges::fill(die_loads_, die_load{});
    ring_.clear(0);
    in_flight_.clear();
    registers_.clear();
  }

  // The die has a command in its queue. Returns when the bus can be granted next, if the channel waited for this.
  std::int64_t arrive(std::int32_t die, std::int64_t now) {
    die_state& state = dies_[static_cast<std::size_t>(die)];
    if (state == die_state::idle) {
      state = die_state::waiting;
      ring_.add(die);
    }
    return std::max(bus_free_, now);
  }

  // Grants the bus at `now`, when it is free: to data only if the buffer behind it has room. reads: of the whole replay.
  template <class Sink>
  bus_grant step(std::int64_t now, bool has_room, command_queues& queues,
                 const operation_ticks& ticks, const read_list& reads, Sink& sink) {
    if (stalled_since_ != never_ticks) {
      stalled_ticks_ += now - std::exchange(stalled_since_, never_ticks);
    }
    if (cache_read_) {  // what has moved by now leaves its array free
      in_flight_.ready_by(now, [&](const flight& moved) { free_die(moved.die, queues); });
    }
    const bool data_is_ready = !in_flight_.empty() && in_flight_.oldest().ready <= now;
    const bool data_waits = data_is_ready && has_room;
    if (data_waits && (ring_.empty() || bus_.choose() == bus_turn::data_out)) {
      const std::size_t page = send(now, queues, ticks, reads, sink);
      return {.next = bus_free_, .sent_page = page};
    }
    if (!ring_.empty()) {
      issue(now, queues, ticks, reads.pages, sink);
      return {.next = bus_free_};
    }
    if (!data_is_ready) {
      return {.next = in_flight_.empty() ? never_ticks : in_flight_.oldest().ready};
    }
    stalled_since_ = now;
    const bool moves = cache_read_ && !in_flight_.all_seen();
    return {.next = moves ? in_flight_.next_ready() : never_ticks, .stalled = true};
  }

  const channel_load& load() const { return load_; }
  // Time with a read under way: from its command to the end of its data.
  std::int64_t active_ticks() const { return active_ticks_; }
  // Part of that: the bus idle, data ready, and no room for it.
  std::int64_t stalled_ticks() const { return stalled_ticks_; }
  std::span<const die_load> die_loads() const { return die_loads_; }

 private:
  enum class die_state : std::uint8_t { idle, waiting, held };

  template <class Sink>
  std::size_t send(std::int64_t now, command_queues& queues, const operation_ticks& ticks,
                   const read_list& reads, Sink& sink) {
    flight& sending = in_flight_.oldest();
    const std::size_t page = queues.page(sending.command, sending.next_page);
    const std::int64_t transfer =
        reads.codewords.empty() ? ticks.transfer() : ticks.transfer(reads.codewords[page]);
    bus_free_ = now + transfer;
    load_.data_ticks += transfer;
    load_.end_ticks = bus_free_ + ticks.decode();
    report(sink, event_kind::data_out, reads.pages, page, now, bus_free_);
    if (++sending.next_page < queues.page_count(sending.command)) {
      return page;
    }
    flight done = sending;
    in_flight_.pop();
    die_load& load = die_loads_[static_cast<std::size_t>(done.die)];
    load.held_ticks +=
        bus_free_ - (cache_read_ ? std::max(done.begin, registers_.left(done.die)) : done.begin);
    if (cache_read_) {
      if (registers_.leave(done, bus_free_, ticks.cache_move())) {
        in_flight_.insert(done);
      }
    } else {
      free_die(done.die, queues);
    }
    if (--outstanding_ == 0) {
      active_ticks_ += bus_free_ - active_since_;
    }
    return page;
  }

  template <class Sink>
  void issue(std::int64_t now, command_queues& queues, const operation_ticks& ticks,
             std::span<const location> pages, Sink& sink) {
    const std::int32_t die = ring_.take();
    dies_[static_cast<std::size_t>(die)] = die_state::held;
    const std::int32_t command = queues.front(first_die_ + static_cast<std::size_t>(die));
    queues.pop(first_die_ + static_cast<std::size_t>(die));
    const std::int32_t count = queues.page_count(command);
    const std::int64_t cycles = ticks.cycles(array_operation::read, count);
    std::int64_t array = ticks.array(array_operation::read);
    if (!ticks.reads_alike()) {  // the slowest plane's
      array = 0;
      for (std::int32_t k = 0; k < count; ++k) {
        array = std::max(array, ticks.read_array(pages[queues.page(command, k)]));
      }
    }
    bus_free_ = now + cycles;
    flight started{.command = command,
                   .die = die,
                   .issue = static_cast<std::int32_t>(load_.commands),
                   .begin = now,
                   .ready = bus_free_ + array};
    report(sink, event_kind::command, pages, queues.page(command, 0), now, bus_free_);
    for (std::int32_t k = 0; traced<Sink> && k < count; ++k) {
      report(sink, event_kind::array_read, pages, queues.page(command, k), bus_free_,
             started.ready);
    }
    die_loads_[static_cast<std::size_t>(die)].array_ticks += array;
    load_.command_ticks += cycles;
    load_.pages += count;
    ++load_.commands;
    load_.multi_plane_commands += count > 1 ? 1 : 0;
    if (outstanding_++ == 0) {
      active_since_ = now;
    }
    if (!cache_read_ || registers_.enter(started, ticks.cache_move())) {
      in_flight_.insert(started);
    }
  }

  void free_die(std::int32_t die, const command_queues& queues) {
    const bool more =
        queues.front(first_die_ + static_cast<std::size_t>(die)) != command_queues::nothing;
    dies_[static_cast<std::size_t>(die)] = more ? die_state::waiting : die_state::idle;
    if (more) {
      ring_.add(die);
    }
  }

  Arbitration arbitration_;  // as each replay starts with it
  Arbitration bus_;
  std::size_t first_die_;  // on the drive
  bool cache_read_;
  channel_load load_;
  std::int64_t bus_free_ = 0;
  std::int64_t active_ticks_ = 0;
  std::int64_t active_since_ = 0;
  std::int64_t stalled_ticks_ = 0;
  std::int64_t stalled_since_ = never_ticks;  // now, if not never
  std::int32_t outstanding_ = 0;              // commands under way
  std::vector<die_state> dies_;
  std::vector<die_load> die_loads_;  // [dies]
  die_ring ring_;
  flight_queue in_flight_;
  cache_registers registers_;
};

}  // namespace instinfer::flash
