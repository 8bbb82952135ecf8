#pragma once
// An event sink that writes a timeline's events as bars of a trace: one group per channel, with a
// row for the bus and one per plane.

#include <cstdint>

#include "instinfer/ssd/report/chrome_trace.hpp"
#include "instinfer/ssd/report/draw_event.hpp"
#include "instinfer/ssd/report/events.hpp"

namespace instinfer::flash {

// Pass it to timeline::read or another replay; the batch starts at begin_ps.
class event_bars {
 public:
  event_bars(chrome_trace& trace, std::int64_t ticks_per_ps, double begin_ps = 0)
      : trace_{&trace},
        ps_per_tick_{1.0 / static_cast<double>(ticks_per_ps)},
        begin_ps_{begin_ps} {}

  void operator()(const event& e) const { draw_event(*trace_, e, begin_ps_, ps_per_tick_); }

 private:
  chrome_trace* trace_;
  double ps_per_tick_;
  double begin_ps_;
};

static_assert(EventSink<event_bars>);

}  // namespace instinfer::flash
