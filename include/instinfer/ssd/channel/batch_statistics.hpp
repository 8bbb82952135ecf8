#pragma once
// Statistics of a replay of one channel after the other, and their sums.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "instinfer/ssd/channel/batch_times.hpp"
#include "instinfer/ssd/channel/channel_statistics.hpp"
#include "instinfer/ssd/spec/geometry.hpp"

namespace instinfer::flash {

class batch_statistics {
 public:
  explicit batch_statistics(const geometry& g) {
    channels_.reserve(static_cast<std::size_t>(g.channels));
    dies_.reserve(static_cast<std::size_t>(g.dies_total()));
  }

  void clear() {
    channels_.clear();
    dies_.clear();
  }
  // Of the next channel.
  void add(const channel_statistics& channel) {
    channels_.push_back(channel.load());
    channel.append_dies(dies_);
  }

  batch_times total(std::int64_t ticks_per_ps) const {
    batch_times sum{.ticks_per_ps = ticks_per_ps, .channels = channels_, .dies = dies_};
    for (const channel_load& load : channels_) {
      sum.makespan_ticks = std::max(sum.makespan_ticks, load.end_ticks);
      sum.pages += load.pages;
      sum.commands += load.commands;
      sum.multi_plane_commands += load.multi_plane_commands;
      sum.suspensions += load.suspensions;
    }
    return sum;
  }

 private:
  std::vector<channel_load> channels_;
  std::vector<die_load> dies_;
};

}  // namespace instinfer::flash
