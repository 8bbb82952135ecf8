#pragma once
// Latencies of one stream among mixed requests, from arrival to finish, by operation and priority.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/channel/io_request.hpp"
#include "instinfer/ssd/report/latencies.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// finish_ticks: result of mixed_timeline::run for `requests` in the scale `scale`. Afterwards
// scratch contains the latencies in no particular order. Throws bad_argument if the two lengths
// differ.
inline latencies stream_latencies(std::span<const io_request> requests,
                                  std::span<const std::int64_t> finish_ticks,
                                  const tick_scale& scale, array_operation what,
                                  std::int32_t priority, std::vector<std::int64_t>& scratch) {
  require(finish_ticks.size() == requests.size(), [&] {
    return "flash stream latencies: " + std::to_string(requests.size()) + " requests, but " +
           std::to_string(finish_ticks.size()) + " finish times";
  });
  scratch.clear();
  for (std::size_t i = 0; i < requests.size(); ++i) {
    const io_request& r = requests[i];
    if (r.what == what && r.priority == priority) {
      scratch.push_back(finish_ticks[i] - r.arrival_ps * scale.ticks_per_ps);
    }
  }
  return latencies_of(scratch);
}

}  // namespace instinfer::flash
