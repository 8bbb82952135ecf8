#pragma once
// How long one channel of an attend had reads under way, and how long its bus stalled meanwhile.

#include <cstdint>
#include <utility>

#include "instinfer/ssd/channel/channel_replay.hpp"

namespace instinfer::flash {

class channel_activity {
 public:
  // `replay` granted its bus at `now`. was_active: replay.is_active() before the grant.
  template <class Replay>
  void note(std::int64_t now, const Replay& replay, bool was_active, const bus_grant& grant) {
    if (was_active != replay.is_active()) {
      active_ticks_ += was_active ? replay.free_at() : -now;
    }
    if (std::exchange(stalls_, grant.stalled)) {
      stalled_ticks_ += now - stalled_since_;
    }
    stalled_since_ = now;
  }

  // Time until `at` with a read under way and without a stall. Call it when data was just sent,
  // with its end.
  std::int64_t worked_ticks(std::int64_t at, bool is_active) const {
    return active_ticks_ + (is_active ? at : 0) - stalled_ticks_;
  }

  // Data waits for room.
  bool stalls() const { return stalls_; }
  // Time with a read under way, from its command to the end of its data. Call it when none is.
  std::int64_t active_ticks() const { return active_ticks_; }
  // Part of that: the bus idle, data ready, and no room for it.
  std::int64_t stalled_ticks() const { return stalled_ticks_; }

 private:
  bool stalls_ = false;
  std::int64_t stalled_since_ = 0;  // if it stalls
  std::int64_t active_ticks_ = 0;   // ends less begins
  std::int64_t stalled_ticks_ = 0;
};

}  // namespace instinfer::flash
