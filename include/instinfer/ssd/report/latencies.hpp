#pragma once
// Percentiles of the latencies of a batch or stream, exact: selected from all latencies.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

namespace instinfer::flash {

// Nearest rank: the smallest latency such that at least the given share of all latencies is not
// larger. 0 if there are no latencies.
struct latencies {
  std::int64_t count = 0;
  std::int64_t p50_ticks = 0;
  std::int64_t p99_ticks = 0;
  std::int64_t p999_ticks = 0;
  std::int64_t max_ticks = 0;

  friend constexpr bool operator==(const latencies&, const latencies&) = default;
};

// O(n); reorders its argument. A batch arrives at time 0, so its finish times are latencies.
constexpr latencies latencies_of(std::span<std::int64_t> ticks) {
  latencies of{.count = static_cast<std::int64_t>(ticks.size())};
  std::size_t below = 0;  // number of entries that are known to be no larger than the others
  const auto select = [&](std::size_t per_thousand) {
    const std::size_t n = ticks.size();
    // ceil(n per_thousand / 1000) - 1, without overflow
    const std::size_t rank = n / 1000 * per_thousand + (n % 1000 * per_thousand + 999) / 1000 - 1;
    std::nth_element(ticks.begin() + static_cast<std::ptrdiff_t>(below),
                     ticks.begin() + static_cast<std::ptrdiff_t>(rank), ticks.end());
    below = rank;
    return ticks[rank];
  };
  if (!ticks.empty()) {
    of.p50_ticks = select(500);
    of.p99_ticks = select(990);
    of.p999_ticks = select(999);
    of.max_ticks = select(1000);
  }
  return of;
}

}  // namespace instinfer::flash
