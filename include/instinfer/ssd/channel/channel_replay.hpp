#pragma once
// Replays one flash channel, a grant of its bus at a time, in exact ticks: who gets the bus next.

#include <cstdint>

#include "instinfer/ssd/channel/arbitration.hpp"
#include "instinfer/ssd/channel/channel_dies.hpp"
#include "instinfer/ssd/channel/channel_statistics.hpp"
#include "instinfer/ssd/channel/replay_work.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// When to ask for a grant again, if nothing comes before.
struct bus_grant {
  std::int64_t next = never_ticks;
  bool stalled = false;  // data waits and may not be sent
};

// The rules of the bus; channel_dies.hpp has those of the dies. All replays use them: timeline
// (batches), mixed_timeline (requests over time) and attend_timeline (attention in the drive).
//
// At each release of the bus, everything that has happened by then is known: an array that ends at
// this tick is ready. The bus goes to
// - the data-out of highest priority; among equals to the one that was ready first, then issued
//   first;
// - or the command of highest priority; among equals round robin over the dies (die_ring.hpp). A
//   die asks for its oldest pages of highest priority (command_queues.hpp). Suspend and resume are
//   commands too (suspension.hpp), with the priority of the waiting read and of the suspended
//   operation.
// The higher priority of the two goes first; between equals the arbitration decides. Nothing on the
// bus is interrupted, but other grants may come between the pages of one read.
//
// Mixed: pages differ in operation and priority. Each grant then asks all dies, O(dies). Otherwise
// a grant is O(1).
template <class Arbitration, bool Mixed = false>
class channel_replay {
  static_assert(BusArbitration<Arbitration>,
                "instinfer: a bus arbitration needs choose() -> bus_turn and must be copyable, see "
                "ssd/channel/arbitration.hpp");

 public:
  channel_replay(const replay_work<Mixed>& work, const Arbitration& arbitration)
      : arbitration_{arbitration}, bus_{arbitration}, dies_{work} {}

  // Starts an idle channel at tick 0. Commands in the queues of its dies wait for the bus. The
  // round robin starts at `first_die`.
  template <class Work>
  void begin(std::int32_t channel, const Work& work, std::int32_t first_die = 0) {
    bus_ = arbitration_;
    free_at_ = 0;
    dies_.begin(channel, work, first_die);
  }

  // A page has come to the queue of a die.
  void come(std::int32_t die) { dies_.come(die); }

  // Grants the free bus at `now`. Data is sent only if the buffer behind it has room. Work:
  // replay_work or plain_reads. finish(page, tick): a page is decoded, programmed or erased at that
  // tick. For Sink see ssd/report/events.hpp. Precondition: `now` does not fall.
  template <class Work, class Finish, class Sink>
  bus_grant grant(std::int64_t now, bool has_room, Work& work, Finish&& finish, Sink& sink) {
    if (Mixed || work.has_cache_read() || work.what(0) != array_operation::read) {
      dies_.settle(now, work, finish, sink);
    }
    std::int32_t priority = 0;  // of the commands that wait
    if constexpr (Mixed) {
      priority = dies_.ask(now, work);
    }
    const bool data_waits = dies_.data_waits(now);
    if (data_waits && has_room && (!dies_.command_waits() || data_goes_before(priority))) {
      return {.next = free_at_ = dies_.send(now, work, finish, sink)};
    }
    if (dies_.command_waits()) {
      return {.next = free_at_ = dies_.command(now, work, sink)};
    }
    if (data_waits) {
      // Until there is room, only a move to a cache register lets a die ask for the bus.
      return {.next = work.has_cache_read() ? dies_.next_change(now) : never_ticks,
              .stalled = true};
    }
    return {.next = dies_.next_change(now)};
  }

  // End of the last grant.
  std::int64_t free_at() const { return free_at_; }
  // Whether a command has begun that is neither done nor suspended.
  bool is_active() const { return dies_.active(); }
  const channel_statistics& statistics() const { return dies_.statistics(); }

 private:
  bool data_goes_before(std::int32_t priority) {
    if constexpr (Mixed) {
      if (dies_.data_priority() != priority) {
        return dies_.data_priority() < priority;
      }
    }
    return bus_.choose() == bus_turn::data_out;
  }

  Arbitration arbitration_;  // at the start of each replay
  Arbitration bus_;
  std::int64_t free_at_ = 0;
  channel_dies<Mixed> dies_;
};

}  // namespace instinfer::flash
