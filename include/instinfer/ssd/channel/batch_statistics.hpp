#pragma once
// Statistics of a batch while it is replayed: which commands wait for their dies, and how busy each bus
// and die has been.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/ssd/channel/batch_rules.hpp"
#include "instinfer/ssd/channel/batch_times.hpp"
#include "instinfer/ssd/channel/command_queues.hpp"
#include "instinfer/ssd/channel/die_ring.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

class batch_statistics {
 public:
  explicit batch_statistics(const geometry& g)
      : dies_per_channel_{g.dies_per_channel()},
        queues_{g},
        ring_{g.dies_per_channel()},
        channels_(static_cast<std::size_t>(g.channels)),
        dies_(static_cast<std::size_t>(g.dies_total())) {}

  // Throws as command_queues::sort does, with nothing changed that a later batch would see.
  void begin(std::span<const location> pages, array_operation what, const batch_rules& rules) {
    queues_.sort(pages, what, rules.pair, rules.arrive);
    std::ranges::fill(channels_, channel_load{});
    std::ranges::fill(dies_, die_load{});
  }

  // Every die of the channel that has a command waits for the bus.
  void begin_channel(std::size_t channel) {
    channel_ = channel;
    first_die_ = channel * static_cast<std::size_t>(dies_per_channel_);
    issues_ = 0;
    ring_.clear(std::max(queues_.first_die(channel), 0));
    for (std::int32_t die = 0; die < dies_per_channel_; ++die) {
      take_next(die);
    }
  }

  bool command_waits() const { return !ring_.empty(); }

  struct issued {
    std::int32_t command;
    std::int32_t die;  // within the channel
    std::int32_t pages;
    std::int32_t number;  // in the channel's order of issue
  };
  // The next command in turn leaves its queue. Precondition: command_waits().
  issued take() {
    const std::int32_t die = ring_.take();
    const std::int32_t command = queues_.front(on_drive(die));
    queues_.pop(on_drive(die));
    return {command, die, queues_.page_count(command), issues_++};
  }

  void book_issue(const issued& c, std::int64_t cycles, std::int64_t data_in, std::int64_t array) {
    channel_load& load = channels_[channel_];
    load.command_ticks += cycles;
    load.data_ticks += data_in;
    load.pages += c.pages;
    ++load.commands;
    load.multi_plane_commands += c.pages > 1 ? 1 : 0;
    dies_[on_drive(c.die)].array_ticks += array;
  }
  void book_data_out(std::int64_t ticks) { channels_[channel_].data_ticks += ticks; }
  // A command that held its die for `held` is done, and the host has its data, at `end`.
  void book_end(std::int32_t die, std::int64_t held, std::int64_t end) {
    dies_[on_drive(die)].held_ticks += held;
    channels_[channel_].end_ticks = end;
  }

  // The die can take its next command, if it has one.
  void take_next(std::int32_t die) {
    if (queues_.front(on_drive(die)) != command_queues::nothing) {
      ring_.add(die);
    }
  }

  std::int32_t page_count(std::int32_t command) const { return queues_.page_count(command); }
  std::size_t page(std::int32_t command, std::int32_t k) const { return queues_.page(command, k); }

  batch_times total(std::int64_t ticks_per_ps) const {
    batch_times sum{.ticks_per_ps = ticks_per_ps, .channels = channels_, .dies = dies_};
    for (const channel_load& load : channels_) {
      sum.add(load);
    }
    return sum;
  }

 private:
  std::size_t on_drive(std::int32_t die) const {
    return first_die_ + static_cast<std::size_t>(die);
  }

  std::int32_t dies_per_channel_;
  std::size_t channel_ = 0;
  std::size_t first_die_ = 0;  // of the channel, on the drive
  std::int32_t issues_ = 0;    // of the channel
  command_queues queues_;
  die_ring ring_;
  std::vector<channel_load> channels_;
  std::vector<die_load> dies_;
};

}  // namespace instinfer::flash
