#pragma once
// Where the time of an attend goes, by unit of the drive, as in InstInfer Fig. 21.

#include <array>
#include <cstddef>

namespace instinfer::flash {

// The units of Fig. 21, and the DRAM that holds the group buffer.
//   logit_0   attention kernels and softmax units on the operations before the fold: SparF's first
//             pass over K
//   top_k     arg-top-k
//   logit     attention kernels and softmax units on the K that is folded
//   attend    attention kernels on V
//   filter    the busiest channel's
//   flash     the busiest channel's: while a read of it is under way, even where it waits for the
//             units behind (call_times::stalled_ns)
//   dram      reads of the group buffer
enum class unit { logit_0, top_k, logit, attend, filter, flash, dram };
inline constexpr std::size_t unit_count = 7;

constexpr const char* unit_name(unit u) {
  constexpr std::array<const char*, unit_count> names{"Logit-0", "top-k", "Logit", "Attend",
                                                      "filter",  "flash", "DRAM"};
  return names[static_cast<std::size_t>(u)];
}

// Units work at the same time, so their busy times add up to more than the attend takes.
struct unit_breakdown {
  std::array<double, unit_count> busy_ns{};

  constexpr double& operator[](unit u) { return busy_ns[static_cast<std::size_t>(u)]; }
  constexpr double operator[](unit u) const { return busy_ns[static_cast<std::size_t>(u)]; }

  constexpr double sum_ns() const {
    double sum = 0;
    for (const double ns : busy_ns) {
      sum += ns;
    }
    return sum;
  }
  // Of all busy time, as Fig. 21 stacks it; 0 where nothing was busy.
  constexpr double share(unit u) const { return sum_ns() > 0 ? (*this)[u] / sum_ns() : 0.0; }

  constexpr unit_breakdown& operator+=(const unit_breakdown& other) {
    for (std::size_t i = 0; i < unit_count; ++i) {
      busy_ns[i] += other.busy_ns[i];
    }
    return *this;
  }
  friend constexpr bool operator==(const unit_breakdown&, const unit_breakdown&) = default;
};

}  // namespace instinfer::flash
