#pragma once
// Draws the replay of an attend as bars: the rows of a Chrome trace (chrome_trace.hpp).

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "instinfer/flash/attend/attend_events.hpp"
#include "instinfer/ssd/report/draw_event.hpp"

namespace instinfer::flash {

// The trace argument of attend where there is no trace. To draw one, pass a chrome_trace
// (ssd/report/chrome_trace.hpp).
struct no_trace {};
template <class Trace>
inline constexpr bool draws = !std::is_same_v<Trace, no_trace>;

// A bar of a unit of the drive, if there is a trace and something to draw.
template <class Trace>
void draw_unit(Trace* trace, const char* row, const char* name, double begin_ns,
               double duration_ns) {
  if constexpr (draws<Trace>) {
    if (trace != nullptr && duration_ns > 0) {
      trace->add("units", row, name, begin_ns * 1e3, duration_ns * 1e3);
    }
  }
}

// A sink of attend_timeline.
template <class Trace>
class attend_trace {
 public:
  attend_trace(Trace& trace, double begin_ps, double ps_per_tick)
      : flash{&trace, begin_ps, ps_per_tick} {}

  struct channel_events {
    Trace* trace;
    double begin_ps;
    double ps_per_tick;
    void operator()(const event& e) const { draw_event(*trace, e, begin_ps, ps_per_tick); }
  };
  channel_events flash;

  void filter(std::size_t channel, std::size_t /*page*/, std::int64_t begin, std::int64_t end) {
    add("channel " + std::to_string(channel), "filter", "entry filter", begin, end);
  }
  void dram(std::size_t /*page*/, std::int64_t begin, std::int64_t end) {
    add("units", "DRAM", "group buffer", begin, end);
  }
  void gemv(kernel_step step, std::size_t /*page*/, std::int64_t begin, std::int64_t end) {
    add("units", "GeMV", step_name(step), begin, end);
  }
  void softmax(const score_set& set, std::int64_t begin, std::int64_t end) {
    add("units", "softmax", step_name(set.step), begin, end);
  }
  void top_k(std::uint32_t /*load*/, std::int64_t begin, std::int64_t end) {
    add("units", "arg-top-k", "rank", begin, end);
  }

 private:
  static const char* step_name(kernel_step step) {
    return step == kernel_step::logit_0 ? "Logit-0"
           : step == kernel_step::logit ? "Logit"
                                        : "Attend";
  }
  void add(const std::string& group, const char* row, const char* name, std::int64_t begin,
           std::int64_t end) {
    flash.trace->add(group, row, name,
                     flash.begin_ps + static_cast<double>(begin) * flash.ps_per_tick,
                     static_cast<double>(end - begin) * flash.ps_per_tick);
  }
};

}  // namespace instinfer::flash
