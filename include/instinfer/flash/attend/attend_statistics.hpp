#pragma once
// Statistics of a replay of an attend: what each phase, channel and die did, and their sums.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "instinfer/flash/attend/attend_phase.hpp"
#include "instinfer/flash/attend/attend_times.hpp"
#include "instinfer/flash/attend/attend_work.hpp"

namespace instinfer::flash {

class attend_statistics {
 public:
  void begin(std::size_t channels) {
    channel_count_ = channels;
    decoded_.clear();
    filtered_.clear();
    reading_.clear();
    worked_.assign(channels, 0);
  }

  // A page of a phase was sent over the bus of channel `c`, which has worked for `worked` ticks
  // since the start. What it worked since the page before goes to this phase.
  void note_read(std::size_t c, std::uint32_t phase, std::int64_t worked) {
    make_room(phase);
    reading_[phase * channel_count_ + c] += worked - std::exchange(worked_[c], worked);
  }

  // A page of a phase crossed the bus of channel `c`. It was decoded at `end` and filtered in
  // `filter_ticks`.
  void note_data(std::size_t c, std::uint32_t phase, std::int64_t end, std::int64_t filter_ticks) {
    make_room(phase);
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
      phases_[p].flash = phases_[p].pages > 0 ? decoded_[p] - phases_[p].begin : 0;
      phases_[p].reading = most(reading_, p);
      phases_[p].filter = most(filtered_, p);
    }
    const auto bound = [&](resource r) -> std::int64_t& {
      return sum.bound_ticks[static_cast<std::size_t>(r)];
    };
    for (const channel_load& load : loads_) {
      bound(resource::bus) = std::max(bound(resource::bus), load.bus_ticks());
    }
    for (const die_load& die : dies_) {
      bound(resource::array) = std::max(bound(resource::array), die.array_ticks);
    }
    for (const phase_ticks& phase : phases_) {
      bound(resource::gemv) += phase.gemv;
      bound(resource::softmax) += phase.softmax;
    }
    bound(resource::filter) = busy(unit::filter);
    bound(resource::top_k) = busy(unit::top_k);
    bound(resource::dram) = busy(unit::dram);
    sum.phases = phases_;
    sum.channels = loads_;
    sum.dies = dies_;
    return sum;
  }

 private:
  void make_room(std::uint32_t phase) {
    while (phase >= decoded_.size()) {
      decoded_.push_back(0);
      filtered_.resize(filtered_.size() + channel_count_);
      reading_.resize(reading_.size() + channel_count_);
    }
  }
  // Of all channels.
  std::int64_t most(std::span<const std::int64_t> of_phases, std::size_t phase) const {
    const auto of_phase = of_phases.subspan(phase * channel_count_, channel_count_);
    return *std::max_element(of_phase.begin(), of_phase.end());
  }

  std::size_t channel_count_ = 0;
  std::vector<phase_ticks> phases_;
  std::vector<std::int64_t> decoded_;   // [phases] the last page
  std::vector<std::int64_t> filtered_;  // [phases, channels] ticks
  std::vector<std::int64_t> reading_;   // [phases, channels] ticks
  std::vector<std::int64_t> worked_;    // [channels] ticks until the last page
  std::vector<channel_load> loads_;     // [channels]
  std::vector<die_load> dies_;          // [dies of the drive]
};

}  // namespace instinfer::flash
