#pragma once
// What a call costs the core: cycles, and instructions, cache and TLB misses where the system lets
// a program count them.

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>

#if defined(__linux__)
#include <linux/perf_event.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#endif

#include <benchmark/benchmark.h>

#include "processor.hpp"

namespace instinfer::bench {

// Cycles of one core a second: a chain of additions, which take one cycle each.
inline double cycles_per_second() {
  constexpr int rounds = 100'000;
  constexpr int chain = 32;
  std::uint64_t x = 1;
  std::uint64_t y = 3;
  benchmark::DoNotOptimize(y);
  const double best = best_seconds(worker_pool(1), [&] {
    for (int i = 0; i < rounds; ++i) {
#if defined(__clang__)
#pragma clang loop unroll(full)
#elif defined(__GNUC__)
#pragma GCC unroll 32
#endif
      for (int c = 0; c < chain; ++c) {
        x += y;
        asm volatile("" : "+r"(x));  // so that no two additions become one
      }
    }
  });
  benchmark::DoNotOptimize(x);
  return double{rounds} * chain / best;
}

// Counts of the calling thread in user mode: what the system does not count is empty.
struct core_counts {
  std::optional<double> cycles;
  std::optional<double> instructions;
  std::optional<double> cache_misses;  // of the last level
  std::optional<double> tlb_misses;    // of loads
};

#if defined(__linux__)

class core_counters {
 public:
  core_counters() {
    const std::uint64_t tlb_loads_missed = PERF_COUNT_HW_CACHE_DTLB |
                                           PERF_COUNT_HW_CACHE_OP_READ << 8 |
                                           PERF_COUNT_HW_CACHE_RESULT_MISS << 16;
    open(0, PERF_TYPE_HARDWARE, PERF_COUNT_HW_CPU_CYCLES);
    open(1, PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS);
    open(2, PERF_TYPE_HARDWARE, PERF_COUNT_HW_CACHE_MISSES);
    open(3, PERF_TYPE_HW_CACHE, tlb_loads_missed);
  }
  ~core_counters() {
    for (const int file : files_) {
      if (file >= 0) {
        close(file);
      }
    }
  }
  core_counters(const core_counters&) = delete;
  core_counters& operator=(const core_counters&) = delete;

  // The counts of `work`; none if the system does not count cycles.
  core_counts of(auto&& work) {
    if (files_[0] < 0) {
      return {};
    }
    ioctl(files_[0], PERF_EVENT_IOC_RESET, PERF_IOC_FLAG_GROUP);
    ioctl(files_[0], PERF_EVENT_IOC_ENABLE, PERF_IOC_FLAG_GROUP);
    work();
    ioctl(files_[0], PERF_EVENT_IOC_DISABLE, PERF_IOC_FLAG_GROUP);
    return {count(0), count(1), count(2), count(3)};
  }

  // Why there are no counts; empty if there are.
  const std::string& refusal() const { return refusal_; }

 private:
  void open(std::size_t i, std::uint32_t type, std::uint64_t what) {
    perf_event_attr event;
    std::memset(&event, 0, sizeof event);
    event.size = sizeof event;
    event.type = type;
    event.config = what;
    event.disabled = i == 0;
    event.exclude_kernel = 1;
    event.exclude_hv = 1;
    files_[i] =
        static_cast<int>(syscall(SYS_perf_event_open, &event, 0, -1, i == 0 ? -1 : files_[0], 0));
    if (files_[i] < 0 && i == 0) {
      refusal_ = std::strerror(errno);
    }
  }
  std::optional<double> count(std::size_t i) const {
    std::uint64_t n = 0;
    if (files_[i] < 0 || read(files_[i], &n, sizeof n) != sizeof n) {
      return std::nullopt;
    }
    return static_cast<double>(n);
  }

  std::array<int, 4> files_{-1, -1, -1, -1};
  std::string refusal_;
};

#else

class core_counters {
 public:
  core_counts of(auto&& /*work*/) { return {}; }
  std::string refusal() const { return "only Linux has it"; }
};

#endif

// The counters of this program's thread. Says once if the system has none.
inline core_counters& counters_of_core() {
  static core_counters counters;
  static const bool said = [] {
    if (!counters.refusal().empty()) {
      std::fprintf(stderr,
                   "perf_event_open: %s: no counts of instructions and misses, and cycles are time "
                   "by the measured clock\n",
                   counters.refusal().c_str());
    }
    return true;
  }();
  benchmark::DoNotOptimize(said);
  return counters;
}

// Adds the counters of a call of one thread that takes `seconds` and reads `bytes` of so many
// tokens: cycles_per_token and bytes_per_cycle, from the system's count or from the clock; and, a
// token each, instructions, cache_misses and tlb_misses, if the system counts them. A token is one
// of one KV head.
void count_call(benchmark::State& state, double seconds, double bytes, double tokens, auto&& call) {
  const core_counts counts = counters_of_core().of(call);
  static const double clock = cycles_per_second();
  const double cycles = counts.cycles.value_or(seconds * clock);
  state.counters["cycles_per_token"] = cycles / tokens;
  state.counters["bytes_per_cycle"] = bytes / cycles;
  const auto add = [&](const char* name, const std::optional<double>& count) {
    if (count) {
      state.counters[name] = *count / tokens;
    }
  };
  add("instructions", counts.instructions);
  add("cache_misses", counts.cache_misses);
  add("tlb_misses", counts.tlb_misses);
}

}  // namespace instinfer::bench
