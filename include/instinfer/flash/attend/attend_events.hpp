#pragma once
// What a replay of an attend reports about each page and unit while it runs: for traces.

#include <cstddef>
#include <cstdint>

#include "instinfer/flash/attend/attend_work.hpp"
#include "instinfer/ssd/report/events.hpp"

namespace instinfer::flash {

// A sink has these members. Times are ticks since the start. `flash` is the sink of the channels
// (ssd/report/events.hpp). Page numbers, also of `flash`, are those of the work. This sink costs
// nothing.
struct no_attend_events {
  no_events flash;

  void filter(std::size_t /*channel*/, std::size_t /*page*/, std::int64_t, std::int64_t) {}
  void dram(std::size_t /*page*/, std::int64_t, std::int64_t) {}
  void gemv(kernel_step, std::size_t /*page*/, std::int64_t, std::int64_t) {}
  void softmax(const score_set&, std::int64_t, std::int64_t) {}
  void top_k(std::uint32_t /*load*/, std::int64_t, std::int64_t) {}
};

}  // namespace instinfer::flash
