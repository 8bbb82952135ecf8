#pragma once
// An event sink that writes a timeline's events as bars of a trace: a group for each channel, in it a row for the bus and
// one for each plane.

#include <cstdint>
#include <string>

#include "instinfer/flash/chrome_trace.hpp"
#include "instinfer/flash/events.hpp"

namespace instinfer::flash {

// Pass it to timeline::read and its like; the batch starts at begin_ps.
class event_bars {
 public:
  event_bars(chrome_trace& trace, std::int64_t ticks_per_ps, double begin_ps = 0)
      : trace_{&trace},
        ps_per_tick_{1.0 / static_cast<double>(ticks_per_ps)},
        begin_ps_{begin_ps} {}

  void operator()(const event& e) const {
    const bool in_plane = e.kind == event_kind::array_read || e.kind == event_kind::program ||
                          e.kind == event_kind::erase;
    const std::string plane = "chip " + std::to_string(e.chip) + " die " + std::to_string(e.die) +
                              " plane " + std::to_string(e.plane);
    trace_->add("channel " + std::to_string(e.channel), in_plane ? plane : std::string("bus"),
                event_name(e.kind), begin_ps_ + static_cast<double>(e.begin_ticks) * ps_per_tick_,
                static_cast<double>(e.end_ticks - e.begin_ticks) * ps_per_tick_);
  }

 private:
  chrome_trace* trace_;
  double ps_per_tick_;
  double begin_ps_;
};

static_assert(EventSink<event_bars>);

}  // namespace instinfer::flash
