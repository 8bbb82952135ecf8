#pragma once
// Draws a channel event as a bar of a trace: in the row of the bus, or in the row of its plane.

#include <string>

#include "instinfer/ssd/report/events.hpp"

namespace instinfer::flash {

// Draws one channel event of a replay that began at begin_ps.
template <class Trace>
void draw_event(Trace& trace, const event& e, double begin_ps, double ps_per_tick) {
  const bool on_bus = e.kind == event_kind::command || e.kind == event_kind::data_out ||
                      e.kind == event_kind::data_in;
  const std::string row = on_bus ? "bus"
                                 : "chip " + std::to_string(e.chip) + " die " +
                                       std::to_string(e.die) + " plane " + std::to_string(e.plane);
  trace.add("channel " + std::to_string(e.channel), row, event_name(e.kind),
            begin_ps + static_cast<double>(e.begin_ticks) * ps_per_tick,
            static_cast<double>(e.end_ticks - e.begin_ticks) * ps_per_tick);
}

}  // namespace instinfer::flash
