#pragma once
// One attend as a case: checked against fp64, timed, and compared with what the processor can do.
// bench/cpu.cpp lists the counters.

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>

#include <benchmark/benchmark.h>

#include "counters.hpp"
#include "filled_cache.hpp"
#include "processor.hpp"

namespace instinfer::bench {

inline const worker_pool& pool_of(std::size_t workers) {
  static std::map<std::size_t, std::unique_ptr<worker_pool>> pools;
  auto& pool = pools[workers];
  if (!pool) {
    pool = std::make_unique<worker_pool>(workers);
  }
  return *pool;
}

// Builds a T on first use, and drops it when another one is needed: caches are large.
template <class T, class Key, class Make>
T& kept(const Key& key, Make&& make) {
  static std::unique_ptr<T> value;
  static std::unique_ptr<Key> of;
  if (!value || !(*of == key)) {
    value.reset();
    value = make();
    of = std::make_unique<Key>(key);
  }
  return *value;
}

// The storage's short name: f16, bf16, f32, i8, f8, i4, f8_latent_rows.
template <class Format>
std::string short_name() {
  const std::string name = Format::codec::name;
  return name[0] == 'b' ? name : name.front() + name.substr(name.find_first_of("0123456789"));
}

// Times `attend` as Google Benchmark asks for; returns the best call's seconds.
inline double best_of(benchmark::State& state, const worker_pool& pool, auto&& attend) {
  double best = 1e9;
  for (auto _ : state) {
    best = std::min(best, seconds(pool, attend));
  }
  return std::min(best, best_seconds(pool, attend));
}

// The least relative error of a path's results: that of its sums, or of the values that it rounds.
template <class Path>
inline constexpr double rounding = 0;
template <cpu::tuning T>
inline constexpr double rounding<cpu::tuned_path<T>> = T.matrix_parts == 3   ? 0
                                                       : T.matrix_parts == 2 ? 0x1p-17
                                                                             : 0x1p-9;

// Path: whose kernels are measured. Others than ours get time_over_ours, on the same pages.
template <class D, class Format, class Path = cpu::path>
void run(benchmark::State& state, const shape& s, double compression, std::size_t workers) {
  using policy_type = typename D::attention_policy;
  constexpr bool dense = std::is_same_v<policy_type, attention::dense>;
  using cache_type = filled_cache<D, Format, Path>;
  const worker_pool& pool = pool_of(workers);
  cache_type& cache = kept<cache_type>(s, [&] {
    if constexpr (dense) {
      return std::make_unique<cache_type>(s, policy_type{});
    } else {
      return std::make_unique<cache_type>(s, policy_type::at_compression(compression));
    }
  });
  const double error = cache.error(pool_of(2));
  const double longest = *std::ranges::max_element(s.tokens);
  if (!(error <= std::max(64 * std::sqrt(longest) * 0x1p-24, 2 * rounding<Path>))) {
    state.SkipWithError(("wrong result: relative error " + std::to_string(error)).c_str());
    return;
  }
  auto out = cache.make_outputs();
  double best = best_of(state, pool, [&] { cache.attend(out, pool); });
  const auto bytes = static_cast<std::size_t>(cache.bytes());
  if constexpr (dense) {
    // A shared processor's speed changes over seconds. So probe and case take turns, and the best
    // of each counts.
    double bandwidth = read_bandwidth(bytes, pool);
    best = std::min(best, best_seconds(pool, [&] { cache.attend(out, pool); }));
    bandwidth = std::max(bandwidth, read_bandwidth(bytes, pool));
    state.counters["of_read_bandwidth"] = cache.bytes() / best / bandwidth;
    static const double flops_of_core = flops_per_second();
    const double flops =
        2.0 * s.all_tokens() * s.q_heads * s.queries * (Format::k_dim + Format::v_dim);
    state.counters["of_roof"] = std::max(cache.bytes() / bandwidth,
                                         flops / (flops_of_core * static_cast<double>(workers))) /
                                best;
    if constexpr (!Format::plain && !Format::latent) {
      filled_cache<D, kv_format<fp16, Format::k_dim, Format::v_dim>, Path> wide(s, {});
      best = std::min(best, best_seconds(pool, [&] { cache.attend(out, pool); }));
      state.counters["time_over_f16"] = best / best_seconds(pool, [&] { wide.attend(out, pool); });
    }
  } else {
    const std::vector<piece> pieces = cache.pieces(pool_of(1));
    double slow = 1e9;
    double gather = 1e9;
    for (int round = 0; round < 2; ++round) {
      gather = std::min(gather, gather_seconds(pieces, pool));
      slow = std::min(slow, best_seconds(pool, [&] {
                        cache.template attend_as<cpu::path>(attention::dense{}, out, pool);
                      }));
      best = std::min(best, best_seconds(pool, [&] { cache.attend(out, pool); }));
    }
    state.counters["vs_dense"] = slow / best;
    state.counters["of_gather_bandwidth"] = gather / best;
  }
  if constexpr (!std::is_same_v<Path, cpu::path>) {
    double ours = 1e9;
    for (int round = 0; round < 2; ++round) {
      ours = std::min(ours, best_seconds(pool, [&] {
                        cache.template attend_as<cpu::path>(cache.policy(), out, pool);
                      }));
      best = std::min(best, best_seconds(pool, [&] { cache.attend(out, pool); }));
    }
    state.counters["time_over_ours"] = best / ours;
  }
  if (s.queries > 1) {
    shape single = s;
    single.queries = 1;
    cache_type one(single, {});
    auto one_out = one.make_outputs();
    state.counters["vs_single"] =
        s.queries * best_seconds(pool, [&] { one.attend(one_out, pool); }) / best;
  }
  if (workers == 1) {
    count_call(state, best, cache.bytes(), s.all_tokens() * s.kv_heads,
               [&] { cache.attend(out, pool); });
  }
  state.counters["bytes_per_second"] = cache.bytes() / best;
  state.counters["rel_error"] = error;
}

template <class D, class Format, class Path = cpu::path>
void add(const char* method, const shape& s, std::initializer_list<std::size_t> threads,
         double compression = 1) {
  for (const std::size_t workers : threads) {
    const std::string c =
        compression > 1 ? "/c" + std::to_string(static_cast<int>(compression)) : "";
    const std::string name = std::string(method) + "/" + short_name<Format>() + "/" +
                             s.name(Format::k_dim) + c + "/threads:" + std::to_string(workers);
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
      run<D, Format, Path>(state, s, compression, workers);
    })->Unit(benchmark::kMillisecond);
  }
}

}  // namespace instinfer::bench
