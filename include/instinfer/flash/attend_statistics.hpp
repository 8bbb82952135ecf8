#pragma once
// Statistics of a replay of an attend: what each phase, channel and die did, and their sums.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/flash/attend_phase.hpp"
#include "instinfer/flash/attend_times.hpp"
#include "instinfer/flash/attend_work.hpp"

namespace instinfer::flash {

class attend_statistics {
 public:
  void begin(std::size_t channels) {
    channel_count_ = channels;
    decoded_.clear();
    filtered_.clear();
  }

  // A page of a phase crossed the bus of channel `c`. It was decoded at `end` and filtered in
  // `filter_ticks`.
  void note_data(std::size_t c, std::uint32_t phase, std::int64_t end, std::int64_t filter_ticks) {
    while (phase >= decoded_.size()) {
      decoded_.push_back(0);
      filtered_.resize(filtered_.size() + channel_count_);
    }
    decoded_[phase] = std::max(decoded_[phase], end);
    filtered_[phase * channel_count_ + c] += filter_ticks;
  }

  // Each of `channels` has `replay` (channel_replay.hpp), `activity` (channel_activity.hpp) and
  // `buffer` (filter_buffer.hpp). The spans of the result view these statistics.
  template <class Channels, class Kernels>
  attend_times total(const Channels& channels, const Kernels& kernels, std::int64_t dram_ticks,
                     std::int64_t ticks_per_ps) {
    attend_times sum{.makespan_ticks = kernels.end(), .ticks_per_ps = ticks_per_ps};
    loads_.clear();
    dies_.clear();
    const auto busy = [&](unit u) -> std::int64_t& {
      return sum.busy_ticks[static_cast<std::size_t>(u)];
    };
    for (const auto& channel : channels) {
      loads_.push_back(channel.replay.statistics().load());
      channel.replay.statistics().append_dies(dies_);
      if (channel.activity.active_ticks() > busy(unit::flash)) {
        busy(unit::flash) = channel.activity.active_ticks();
        sum.stalled_ticks = channel.activity.stalled_ticks();
      }
      busy(unit::filter) = std::max(busy(unit::filter), channel.buffer.busy_ticks());
    }
    busy(unit::dram) = dram_ticks;
    busy(unit::top_k) = kernels.top_k_busy();
    busy(unit::logit_0) = kernels.busy(kernel_step::logit_0);
    busy(unit::logit) = kernels.busy(kernel_step::logit);
    busy(unit::attend) = kernels.busy(kernel_step::attend);
    phases_.assign(kernels.phases().begin(), kernels.phases().end());
    for (std::size_t p = 0; p < decoded_.size(); ++p) {  // later phases have no pages
      const auto filtered = std::span(filtered_).subspan(p * channel_count_, channel_count_);
      phases_[p].flash = phases_[p].pages > 0 ? decoded_[p] - phases_[p].begin : 0;
      phases_[p].filter = *std::max_element(filtered.begin(), filtered.end());
    }
    sum.phases = phases_;
    sum.channels = loads_;
    sum.dies = dies_;
    return sum;
  }

 private:
  std::size_t channel_count_ = 0;
  std::vector<phase_ticks> phases_;
  std::vector<std::int64_t> decoded_;   // [phases] the last page
  std::vector<std::int64_t> filtered_;  // [phases, channels] ticks
  std::vector<channel_load> loads_;     // [channels]
  std::vector<die_load> dies_;          // [dies of the drive]
};

}  // namespace instinfer::flash
