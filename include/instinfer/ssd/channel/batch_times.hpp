#pragma once
// What a timeline returns for a batch: makespan, and busy time of each bus and die, in exact ticks.

#include <algorithm>
#include <cstdint>
#include <span>

#include "instinfer/ssd/channel/channel_statistics.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// Ticks to a unit of `unit_ps`, to nearest: the one place where time is rounded.
constexpr std::int64_t round_ticks(std::int64_t ticks, std::int64_t ticks_per_ps,
                                   std::int64_t unit_ps = 1) {
  const std::int64_t unit = ticks_per_ps * unit_ps;
  return ticks / unit + (ticks % unit >= unit - unit / 2 ? 1 : 0);
}

// The spans view the timeline's own arrays: valid until its next batch.
struct batch_times {
  std::int64_t makespan_ticks = 0;
  std::int64_t ticks_per_ps = 1;
  std::int64_t pages = 0;
  std::int64_t commands = 0;
  std::int64_t multi_plane_commands = 0;
  std::int64_t suspensions = 0;
  std::span<const channel_load> channels;  // [channels]
  std::span<const die_load> dies;  // [channels, dies, chips]: (channel dies + die) chips + chip

  constexpr std::int64_t makespan_ps() const { return round_ticks(makespan_ticks, ticks_per_ps); }
  constexpr std::int64_t makespan_ns() const {
    return round_ticks(makespan_ticks, ticks_per_ps, ps_per_ns);
  }
};

}  // namespace instinfer::flash
