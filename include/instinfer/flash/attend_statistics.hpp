#pragma once
// Statistics of a replay of an attend: what each phase, channel and die did, and the sums that its result gives.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/flash/attend_times.hpp"
#include "instinfer/flash/attend_work.hpp"

namespace instinfer::flash {

class attend_statistics {
 public:
  void begin(std::size_t channels) {
    channel_count_ = channels;
    phases_.clear();
    filtered_.clear();
  }

  // A page of a phase that came over channel `c` was decoded at `end`, and filtered in `filter_ticks`.
  void note_data(std::size_t c, std::uint32_t phase, std::int64_t end, std::int64_t filter_ticks) {
    while (phase >= phases_.size()) {
      phases_.emplace_back();
      filtered_.resize(filtered_.size() + channel_count_);
    }
    phases_[phase].data_end_ticks = std::max(phases_[phase].data_end_ticks, end);
    filtered_[phase * channel_count_ + c] += filter_ticks;
  }

  // channels: with `reads` (read_channel.hpp) and `buffer` (filter_buffer.hpp) each. The spans view these statistics.
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
      loads_.push_back(channel.reads.load());
      dies_.insert(dies_.end(), channel.reads.die_loads().begin(), channel.reads.die_loads().end());
      if (channel.reads.active_ticks() > busy(unit::flash)) {
        busy(unit::flash) = channel.reads.active_ticks();
        sum.stalled_ticks = channel.reads.stalled_ticks();
      }
      busy(unit::filter) = std::max(busy(unit::filter), channel.buffer.busy_ticks());
    }
    busy(unit::dram) = dram_ticks;
    busy(unit::top_k) = kernels.top_k_busy();
    busy(unit::logit_0) = kernels.busy(kernel_step::logit_0);
    busy(unit::logit) = kernels.busy(kernel_step::logit);
    busy(unit::attend) = kernels.busy(kernel_step::attend);
    phases_.resize(kernels.phases().size());
    filtered_.resize(phases_.size() * channel_count_);
    for (std::size_t p = 0; p < phases_.size(); ++p) {
      const auto& from = kernels.phases()[p];
      attend_phase& to = phases_[p];
      const auto filtered = std::span(filtered_).subspan(p * channel_count_, channel_count_);
      to = {.op = from.op,
            .pages = from.pages,
            .begin_ticks = from.begin,
            .data_end_ticks = to.data_end_ticks,
            .end_ticks = from.end,
            .filter_ticks = *std::ranges::max_element(filtered),
            .gemv_ticks = from.gemv,
            .softmax_ticks = from.softmax,
            .top_k_ticks = from.top_k};
    }
    sum.phases = phases_;
    sum.channels = loads_;
    sum.dies = dies_;
    return sum;
  }

 private:
  std::size_t channel_count_ = 0;
  std::vector<attend_phase> phases_;
  std::vector<std::int64_t> filtered_;  // [phases, channels] ticks
  std::vector<channel_load> loads_;     // [channels]
  std::vector<die_load> dies_;          // [dies of the drive]
};

}  // namespace instinfer::flash
