#pragma once
// One reading operation of all heads of an attend, and how long each part of the drive works for
// it.

#include <cstdint>

#include "instinfer/attention/observer.hpp"

namespace instinfer::flash {

// With attention in storage, phases overlap: a head may be in its second phase while others are in
// their first. On host routes, phases follow each other, and units of the drive have no times.
//
// Time is std::int64_t for exact ticks, or double for nanoseconds.
template <class Time>
struct attend_phase {
  attention::operation op = attention::operation::fold;
  std::uint64_t pages = 0;  // read from flash
  Time begin = 0;           // release of its first load, since the query arrived
  Time end = 0;             // end of its last load
  Time flash = 0;           // from `begin` until its last page is decoded; 0 without pages
  Time reading = 0;         // of the busiest channel: reads under way, without stalls
  Time filter = 0;          // busy time of the filter of the busiest channel
  Time gemv = 0;            // busy time of the attention kernels
  Time softmax = 0;         // busy time of the softmax units
  Time top_k = 0;           // busy time of arg-top-k before the phase
  Time route = 0;           // host routes: transfer of the pages to the GPU

  constexpr Time total() const { return end - begin; }
};

using phase_ticks = attend_phase<std::int64_t>;
using phase_ns = attend_phase<double>;

// in_ns(ticks) converts one time.
template <class InNs>
constexpr phase_ns in_ns(const phase_ticks& phase, InNs&& in_ns) {
  return {.op = phase.op,
          .pages = phase.pages,
          .begin = in_ns(phase.begin),
          .end = in_ns(phase.end),
          .flash = in_ns(phase.flash),
          .reading = in_ns(phase.reading),
          .filter = in_ns(phase.filter),
          .gemv = in_ns(phase.gemv),
          .softmax = in_ns(phase.softmax),
          .top_k = in_ns(phase.top_k),
          .route = in_ns(phase.route)};
}

}  // namespace instinfer::flash
