#pragma once
// What this processor can do, measured in the process that benchmarks: read bandwidth for so many
// bytes and threads, fp32 arithmetic; and what a run's header says of it.

#include <chrono>
#include <ctime>
#include <fstream>
#include <memory>
#include <string>
#include <thread>

#include <benchmark/benchmark.h>

#include <instinfer/cpu.hpp>

#include "worker_pool.hpp"

namespace instinfer::bench {

// How long `work` takes on the workers of a pool. One worker counts its processor time, which
// leaves out what the system gave to other programs meanwhile; they still cost bandwidth and cache.
inline double seconds(const worker_pool& pool, auto&& work) {
  const auto now = [&] {
    if (pool.workers() > 1) {
      return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
          .count();
    }
    std::timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  const double begin = now();
  work();
  return now() - begin;
}

// The best time of one call: of 5 at least, and of as many as fit into 0.3 s.
inline double best_seconds(const worker_pool& pool, auto&& work) {
  double best = 1e9;
  double all = 0;
  for (int i = 0; i < 5 || all < 0.3; ++i) {
    const double one = seconds(pool, work);
    best = std::min(best, one);
    all += one;
  }
  return best;
}

// A store of `bytes` written once, in huge pages where the system gives them, as caches are.
inline const float* probe_memory(std::size_t bytes) {
  constexpr std::size_t page_bytes = 4096;
  static std::unique_ptr<store::memory> buffer;
  if (!buffer || buffer->capacity_pages() * page_bytes < bytes) {
    buffer.reset();
    buffer = std::make_unique<store::memory>(1, bytes / page_bytes + 1, std::uint32_t{page_bytes});
    for (std::uint64_t i = 0; i < buffer->capacity_pages(); ++i) {
      std::ranges::fill(buffer->write(buffer->allocate(0)), std::byte{1});
    }
  }
  return reinterpret_cast<const float*>(buffer->view(page_id{0}).data());
}

// Best rate of a streaming read of `bytes` by all workers, in bytes per second, with and without
// software prefetch. What fits in a cache is read from there.
inline double read_bandwidth(std::size_t bytes, const worker_pool& pool) {
  const std::size_t workers = pool.workers();
  const float* data = probe_memory(bytes);
  const std::size_t part = bytes / sizeof(float) / workers / 256 * 256;
  std::vector<float> sums(workers);
  double best = 1e9;
  for (const std::size_t ahead : {256, 0}) {
    best = std::min(best, best_seconds(pool, [&] {
                      pool.for_each(workers, [&](std::size_t i, std::size_t) {
                        sums[i] = cpu::sum_of(data + i * part, part, ahead);
                      });
                    }));
  }
  benchmark::DoNotOptimize(sums.data());
  return static_cast<double>(part * workers * sizeof(float)) / best;
}

// fp32 multiply-adds of one core in registers, 2 FLOP each.
inline double flops_per_second() {
  namespace hn = cpu::hn;
  constexpr int rounds = 100'000;
  constexpr int chains = 12;  // latency times ports, and 16 registers hold them
  float result = 0;
  const double best = best_seconds(worker_pool(1), [&] {
    const auto factor = hn::Set(cpu::float_tag{}, 0.999f);
    cpu::stored_vec sums[chains];
    for (auto& s : sums) {
      s = factor;
    }
    for (int i = 0; i < rounds; ++i) {
      HWY_UNROLL(12)
      for (int c = 0; c < chains; ++c) {
        sums[c] = hn::MulAdd(sums[c], factor, factor);
      }
    }
    for (const auto& s : sums) {
      result += cpu::sum(s);
    }
  });
  benchmark::DoNotOptimize(result);
  return 2.0 * rounds * chains * cpu::lanes / best;
}

// The first value behind `key` in a file of "key : value" lines; empty if there is none.
inline std::string value_in(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(key, 0) == 0) {
      const std::size_t at = line.find_first_not_of(" \t:", key.size());
      return at == std::string::npos ? std::string() : line.substr(at);
    }
  }
  return {};
}

// How much of a store of 64 MiB lies in huge pages.
inline std::string page_size() {
  const auto huge_kib = [] {
    const std::string value = value_in("/proc/self/smaps_rollup", "AnonHugePages");
    return value.empty() ? 0.0 : std::stod(value);
  };
  const double before = huge_kib();
  probe_memory(64u << 20);
  const double share = (huge_kib() - before) / (64 << 10);
  return share < 0.01 ? "4 KiB"
                      : "2 MiB for " + std::to_string(static_cast<int>(100 * share + 0.5)) +
                            " % of a store, else 4 KiB";
}

inline void add_machine_to_header() {
  const std::string cpu_name = value_in("/proc/cpuinfo", "model name");
  const std::string load = value_in("/proc/loadavg", "");
  benchmark::AddCustomContext("cpu", cpu_name.empty() ? "unknown" : cpu_name);
  benchmark::AddCustomContext("cores", std::to_string(std::thread::hardware_concurrency()));
  benchmark::AddCustomContext("simd_target", cpu::target_name());
  benchmark::AddCustomContext("compiler", __VERSION__);
#if defined(INSTINFER_BENCH_FLAGS)
  benchmark::AddCustomContext("flags", INSTINFER_BENCH_FLAGS);
#endif
  benchmark::AddCustomContext("page_size", page_size());
  benchmark::AddCustomContext("load_before", load.substr(0, load.find(' ')));
  benchmark::AddCustomContext("flops_per_second", std::to_string(flops_per_second()));
}

}  // namespace instinfer::bench
