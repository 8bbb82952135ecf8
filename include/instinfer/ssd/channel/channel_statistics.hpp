#pragma once
// What one channel's bus and dies have done in a replay: operations, busy times, and times of waiting.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "instinfer/ssd/channel/event_queue.hpp"

namespace instinfer::flash {

struct channel_load {
  std::int64_t end_ticks = 0;      // of the channel's last operation
  std::int64_t command_ticks = 0;  // bus busy with command cycles
  std::int64_t data_ticks = 0;     // bus busy with page data
  std::int64_t pages = 0;
  std::int64_t commands = 0;
  std::int64_t multi_plane_commands = 0;
  std::int64_t suspensions = 0;  // only of mixed streams

  constexpr std::int64_t bus_ticks() const { return command_ticks + data_ticks; }
};

struct die_load {
  std::int64_t array_ticks = 0;  // reading, programming or erasing
  std::int64_t held_ticks = 0;   // with a command in its array or registers, or suspended
};

class channel_statistics {
 public:
  explicit channel_statistics(std::int32_t dies)
      : dies_(static_cast<std::size_t>(dies)), holds_(dies_.size()) {}

  void begin() {
    load_ = {};
    active_ticks_ = stalled_ticks_ = 0;
    stalled_since_ = never_ticks;
    under_way_ = 0;
    std::ranges::fill(dies_, die_load{});
    std::ranges::fill(holds_, hold{});
  }

  // A command of `pages` pages has the bus from `begin`: its cycles until `cycles_end`, its data until `data_end`.
  void start(std::int32_t die, std::int32_t pages, std::int64_t begin, std::int64_t cycles_end,
             std::int64_t data_end) {
    load_.command_ticks += cycles_end - begin;
    load_.data_ticks += data_end - cycles_end;
    load_.pages += pages;
    ++load_.commands;
    load_.multi_plane_commands += pages > 1 ? 1 : 0;
    hold& of = holds_[static_cast<std::size_t>(die)];
    if (of.commands++ == 0) {
      of.since = begin;
    }
    if (under_way_++ == 0) {
      active_since_ = begin;
    }
  }
  // The die is done with one of its commands at `end`.
  void end(std::int32_t die, std::int64_t end) {
    hold& of = holds_[static_cast<std::size_t>(die)];
    if (--of.commands == 0) {
      dies_[static_cast<std::size_t>(die)].held_ticks += end - of.since;
    }
    if (--under_way_ == 0) {
      active_ticks_ += end - active_since_;
    }
  }
  void data_out(std::int64_t ticks) { load_.data_ticks += ticks; }
  void page_done(std::int64_t at) { load_.end_ticks = std::max(load_.end_ticks, at); }
  // Negative: a suspension takes back what was counted.
  void array_works(std::int32_t die, std::int64_t ticks) {
    dies_[static_cast<std::size_t>(die)].array_ticks += ticks;
  }
  void suspend(std::int64_t cycles) {
    load_.command_ticks += cycles;
    ++load_.suspensions;
  }
  void resume(std::int64_t cycles) { load_.command_ticks += cycles; }

  // Data is ready and has no room, from `now` to the next end_stall.
  void stall(std::int64_t now) { stalled_since_ = now; }
  void end_stall(std::int64_t now) {
    if (stalled_since_ != never_ticks) {
      stalled_ticks_ += now - std::exchange(stalled_since_, never_ticks);
    }
  }

  // Commands in a die's array and registers, and suspended.
  std::int32_t commands_on(std::int32_t die) const {
    return holds_[static_cast<std::size_t>(die)].commands;
  }
  const channel_load& load() const { return load_; }
  std::span<const die_load> dies() const { return dies_; }
  // Time with a command under way, from its first cycle to the end of its data or array time.
  std::int64_t active_ticks() const { return active_ticks_; }
  // Part of that: the bus idle, data ready, and no room for it.
  std::int64_t stalled_ticks() const { return stalled_ticks_; }

 private:
  struct hold {
    std::int32_t commands = 0;
    std::int64_t since = 0;  // if there are commands
  };
  channel_load load_;
  std::int64_t active_ticks_ = 0;
  std::int64_t active_since_ = 0;  // if there are commands under way
  std::int64_t stalled_ticks_ = 0;
  std::int64_t stalled_since_ = never_ticks;  // never: it is not stalled
  std::int32_t under_way_ = 0;                // commands
  std::vector<die_load> dies_;
  std::vector<hold> holds_;  // [dies]
};

}  // namespace instinfer::flash
