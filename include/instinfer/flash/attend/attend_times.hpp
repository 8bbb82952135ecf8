#pragma once
// The result of a replay of an attend: makespan, phases, and busy time of each unit, in exact
// ticks.

#include <array>
#include <cstdint>
#include <span>

#include "instinfer/flash/accelerator/unit_breakdown.hpp"
#include "instinfer/flash/attend/attend_bounds.hpp"
#include "instinfer/flash/attend/attend_phase.hpp"
#include "instinfer/ssd/channel/batch_times.hpp"

namespace instinfer::flash {

// The spans view the timeline's own arrays: valid until its next run.
struct attend_times {
  std::int64_t makespan_ticks = 0;
  std::int64_t ticks_per_ps = 1;
  std::array<std::int64_t, unit_count> busy_ticks{};       // by unit
  std::array<std::int64_t, resource_count> bound_ticks{};  // by resource; the link has none
  // Part of busy_ticks[unit::flash]: the bus of this channel is idle, data is ready, and the buffer
  // behind the bus has no room for it.
  std::int64_t stalled_ticks = 0;
  std::span<const phase_ticks> phases = {};
  std::span<const channel_load> channels = {};  // [channels]
  std::span<const die_load> dies = {};          // [channels, dies of a channel], as batch_times

  constexpr std::int64_t makespan_ps() const { return round_ticks(makespan_ticks, ticks_per_ps); }
  constexpr double ns(std::int64_t ticks) const {
    return static_cast<double>(ticks) / static_cast<double>(ticks_per_ps) * 1e-3;
  }
};

}  // namespace instinfer::flash
