#pragma once
// What the bus and the dies of one channel have done in a replay: operations and busy times.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "instinfer/codec/unit_rules.hpp"

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
  explicit channel_statistics(std::int32_t dies) : dies_(static_cast<std::size_t>(dies)) {}

  void begin() {
    load_ = {};
    std::fill(dies_.begin(), dies_.end(), die_record{});
  }

  // A command of `pages` pages has the bus from `begin`: its cycles until `cycles_end`, its data
  // until `data_end`.
  void start(std::int32_t die, std::int32_t pages, std::int64_t begin, std::int64_t cycles_end,
             std::int64_t data_end) {
    load_.command_ticks += cycles_end - begin;
    load_.data_ticks += data_end - cycles_end;
    load_.pages += pages;
    ++load_.commands;
    load_.multi_plane_commands += pages > 1 ? 1 : 0;
    die_record& of = dies_[static_cast<std::size_t>(die)];
    of.load.held_ticks -= of.commands++ == 0 ? begin : 0;
  }
  // A command leaves its die at `end`, and its pages are decoded at `done`.
  void end(std::int32_t die, std::int64_t end, std::int64_t done) {
    load_.end_ticks = std::max(load_.end_ticks, done);
    die_record& of = dies_[static_cast<std::size_t>(die)];
    of.load.held_ticks += --of.commands == 0 ? end : 0;
  }
  void data_out(std::int64_t ticks) { load_.data_ticks += ticks; }
  // A suspension takes time back: `ticks` is then negative.
  void array_works(std::int32_t die, std::int64_t ticks) {
    dies_[static_cast<std::size_t>(die)].load.array_ticks += ticks;
  }
  void suspend(std::int64_t cycles) {
    load_.command_ticks += cycles;
    ++load_.suspensions;
  }
  void resume(std::int64_t cycles) { load_.command_ticks += cycles; }

  // Commands in the array and the registers of a die, and suspended ones.
  std::int32_t commands_on(std::int32_t die) const {
    return dies_[static_cast<std::size_t>(die)].commands;
  }
  const channel_load& load() const { return load_; }
  // Appends the load of each die.
  void append_dies(std::vector<die_load>& loads) const {
    for (const die_record& die : dies_) {
      loads.push_back(die.load);
    }
  }

 private:
  // held_ticks is the sum of the ends of holding, less the sum of the begins.
  struct die_record {
    die_load load;
    std::int32_t commands = 0;
  };
  channel_load load_;
  std::vector<die_record> dies_;
};

}  // namespace instinfer::flash
