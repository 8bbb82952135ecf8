#pragma once
// Lower bounds of an attend's time, one for each resource: how long it works if nothing else does.

#include <algorithm>
#include <array>
#include <cstddef>

namespace instinfer::flash {

// Each does one thing at a time, so no attend is shorter than its work on any of them.
//   array     the busiest die's: tR of its read commands
//   bus       the busiest channel's: command cycles and data
//   filter    the busiest channel's: bytes that crossed the bus
//   gemv      all attention kernels together: FLOP of Logit-0, Logit and Attend
//   softmax   all softmax units together
//   top_k     arg-top-k
//   dram      entries of the group buffer
//   link      q down and the output up; on host routes also the pages to the GPU
enum class resource { array, bus, filter, gemv, softmax, top_k, dram, link };
inline constexpr std::size_t resource_count = 8;

constexpr const char* resource_name(resource r) {
  constexpr std::array<const char*, resource_count> names{"array",   "bus",   "filter", "GeMV",
                                                          "softmax", "top-k", "DRAM",   "link"};
  return names[static_cast<std::size_t>(r)];
}

struct attend_bounds {
  std::array<double, resource_count> busy_ns{};

  constexpr double& operator[](resource r) { return busy_ns[static_cast<std::size_t>(r)]; }
  constexpr double operator[](resource r) const { return busy_ns[static_cast<std::size_t>(r)]; }

  // The first of the largest.
  constexpr resource largest() const {
    return static_cast<resource>(std::max_element(busy_ns.begin(), busy_ns.end()) -
                                 busy_ns.begin());
  }
  constexpr attend_bounds& operator+=(const attend_bounds& other) {
    for (std::size_t i = 0; i < resource_count; ++i) {
      busy_ns[i] += other.busy_ns[i];
    }
    return *this;
  }
  friend constexpr bool operator==(const attend_bounds&, const attend_bounds&) = default;
};

}  // namespace instinfer::flash
