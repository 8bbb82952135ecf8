#pragma once
// What a replay of an attend returns: makespan, its phases, and how long each unit was busy, in exact ticks.

#include <array>
#include <cstdint>
#include <span>

#include "instinfer/attention/machine.hpp"
#include "instinfer/flash/accelerator/unit_breakdown.hpp"
#include "instinfer/ssd/channel/batch_times.hpp"

namespace instinfer::flash {

// One reading operation of all heads. Phases overlap: a head may be in its second while others are in their first.
struct attend_phase {
  attention::operation op = attention::operation::fold;
  std::int64_t pages = 0;           // read from flash
  std::int64_t begin_ticks = 0;     // its first load is released
  std::int64_t data_end_ticks = 0;  // its last page is decoded; 0 without pages
  std::int64_t end_ticks = 0;       // its last load is through kernels and softmax units
  std::int64_t filter_ticks = 0;    // busy: the busiest channel's filter
  std::int64_t gemv_ticks = 0;
  std::int64_t softmax_ticks = 0;
  std::int64_t top_k_ticks = 0;  // before the phase
};

// The spans view the timeline's own arrays: valid until its next run.
struct attend_times {
  std::int64_t makespan_ticks = 0;
  std::int64_t ticks_per_ps = 1;
  std::array<std::int64_t, unit_count> busy_ticks{};  // by unit
  // Part of busy_ticks[unit::flash]: that channel's bus idle, with data ready and no room for it behind the bus.
  std::int64_t stalled_ticks = 0;
  std::span<const attend_phase> phases = {};
  std::span<const channel_load> channels = {};  // [channels]
  std::span<const die_load> dies = {};          // [channels, dies of a channel], as batch_times

  constexpr std::int64_t makespan_ps() const { return round_ticks(makespan_ticks, ticks_per_ps); }
  constexpr double ns(std::int64_t ticks) const {
    return static_cast<double>(ticks) / static_cast<double>(ticks_per_ps) * 1e-3;
  }
};

}  // namespace instinfer::flash
