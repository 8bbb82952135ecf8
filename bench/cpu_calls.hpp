#pragma once
// The calls of an engine on the CPU path other than attend: how long they take.

#include <cmath>
#include <cstring>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <instinfer/summaries/cluster_index.hpp>

#include "filled_cache.hpp"
#include "processor.hpp"

namespace instinfer::bench {

// A prompt's K and V for one layer, [tokens, heads, dims] each, in memory like that of a store:
// huge pages where the system gives them.
template <class Format>
class prompt {
 public:
  using element = typename Format::element;

  prompt(int tokens, int heads)
      : size_{static_cast<std::size_t>(tokens * heads * Format::k_dim)},
        memory_{2 * size_ * sizeof(element)} {
    static_assert(Format::k_dim == Format::v_dim);
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<element> some(1u << 20);
    for (element& x : some) {
      x = from_float<element>(normal(random));
    }
    for (std::size_t i = 0; i < 2 * size_; ++i) {
      data()[i] = some[(i + i / some.size() * 77) % some.size()];
    }
  }
  std::span<const element> k() const { return {data(), size_}; }
  std::span<const element> v() const { return {data() + size_, size_}; }

 private:
  element* data() const { return reinterpret_cast<element*>(memory_.data()); }

  std::size_t size_;
  store::reserved_memory memory_;
};

// The relative error of a query head's attention over a prompt, in the 2-norm, that the storage may
// cause. Rows in wrong places cause 1 and more.
template <class Format>
inline constexpr double rounding_of = Format::plain                          ? 1e-4
                                      : sizeof(typename Format::packed) == 1 ? 0.05
                                                                             : 0.5;

// That error for head 0, against fp64 on the prompt. The query is a key: it has a clear maximum.
template <class Engine, class Format>
double error_of_head_0(Engine& engine, sequence seq, const prompt<Format>& x, int heads) {
  constexpr auto d = static_cast<std::size_t>(Format::k_dim);
  const std::size_t row = static_cast<std::size_t>(heads) * d;
  const std::size_t tokens = x.k().size() / row;
  std::vector<float> q(row), out(row);
  for (std::size_t i = 0; i < d; ++i) {
    q[i] = to_float(x.k()[tokens / 3 * row + i]);
  }
  engine.attend(seq, 0, q, out);
  reference::row_vector query(d);
  reference::matrix k(tokens, d), v(tokens, d);
  for (std::size_t i = 0; i < d; ++i) {
    const auto to = static_cast<Eigen::Index>(i);
    query[to] = static_cast<double>(q[i]);
    for (std::size_t t = 0; t < tokens; ++t) {
      k(static_cast<Eigen::Index>(t), to) = static_cast<double>(to_float(x.k()[t * row + i]));
      v(static_cast<Eigen::Index>(t), to) = static_cast<double>(to_float(x.v()[t * row + i]));
    }
  }
  const reference::row_vector exact = reference::exact_attention(query, k, v);
  double difference = 0;
  for (std::size_t i = 0; i < d; ++i) {
    difference += std::pow(static_cast<double>(out[i]) - exact[static_cast<Eigen::Index>(i)], 2);
  }
  return std::sqrt(difference) / exact.norm();
}

// append/: a prompt in one call, of all heads of a layer. The pages that it is written to were
// written before. Counters:
//   bytes_per_second   bytes of k and v
//   of_copy            a copy of k and v, to memory that was written before, over the append
template <class D, class Format>
void run_append(benchmark::State& state, int tokens, int heads) {
  const worker_pool pool(1);
  const prompt<Format> x(tokens, heads);
  const std::size_t bytes = x.k().size_bytes() + x.v().size_bytes();
  const store::reserved_memory to(bytes);
  cpu::engine<D, Format> engine(
      {.layers = 1, .q_heads = heads, .kv_heads = heads},
      {.bytes = 2 * bytes + (64u << 20), .context_tokens = static_cast<std::uint32_t>(tokens)});
  double best = 1e9;
  double copy = 1e9;
  const auto append = [&] {
    const sequence seq = engine.open();
    best = std::min(best, seconds(pool, [&] { engine.append(seq, 0, x.k(), x.v()); }));
    engine.reclaim(seq);
    copy = std::min(copy, seconds(pool, [&] {
                      std::memcpy(to.data(), x.k().data(), x.k().size_bytes());
                      std::memcpy(to.data() + bytes / 2, x.v().data(), x.v().size_bytes());
                      benchmark::DoNotOptimize(to.data());
                    }));
  };
  for (auto _ : state) {
    append();
  }
  for (int i = 0; i < 5; ++i) {
    append();
  }
  const sequence seq = engine.open();
  engine.append(seq, 0, x.k(), x.v());
  if (!(error_of_head_0(engine, seq, x, heads) <= rounding_of<Format>)) {
    state.SkipWithError("attention over what was appended is wrong");
    return;
  }
  state.counters["bytes_per_second"] = static_cast<double>(bytes) / best;
  state.counters["of_copy"] = copy / best;
}

template <class D, class Format>
void add_append(const char* name, int tokens, int heads) {
  const std::string full = std::string("append/") + name + "/kv" + std::to_string(heads) + "/d" +
                           std::to_string(Format::k_dim) + "/t" + std::to_string(tokens);
  benchmark::RegisterBenchmark(full.c_str(), [=](benchmark::State& state) {
    run_append<D, Format>(state, tokens, heads);
  })->Unit(benchmark::kMillisecond);
}

// A file in memory, which was written before: no system call is measured.
class memory_file : public std::streambuf {
 public:
  explicit memory_file(std::size_t bytes) : bytes_{bytes}, memory_{bytes} {
    std::memset(begin(), 0, bytes);
  }

  void rewind() {
    setp(begin(), begin() + bytes_);
    setg(begin(), begin(), begin() + bytes_);
  }
  std::size_t written() const { return static_cast<std::size_t>(pptr() - pbase()); }
  void copy_of(const memory_file& other) const {
    std::memcpy(begin(), other.begin(), other.written());
    benchmark::DoNotOptimize(begin());
  }

 private:
  char* begin() const { return reinterpret_cast<char*>(memory_.data()); }
  std::size_t bytes_;
  store::reserved_memory memory_;
};

// file/: a prompt of all heads of a layer is saved to memory, or loaded. Counters:
//   bytes_per_second   bytes of the file
//   of_copy            a copy of as many bytes over the call
template <class D, class Format>
void run_file(benchmark::State& state, bool loads, int tokens, int heads) {
  const worker_pool pool(1);
  const prompt<Format> x(tokens, heads);
  const std::size_t bytes = x.k().size_bytes() + x.v().size_bytes();
  cpu::engine<D, Format> engine(
      {.layers = 1, .q_heads = heads, .kv_heads = heads},
      {.bytes = 3 * bytes + (64u << 20), .context_tokens = static_cast<std::uint32_t>(tokens)});
  const sequence seq = engine.open();
  engine.append(seq, 0, x.k(), x.v());
  memory_file file(bytes + (16u << 20));
  const memory_file copy(bytes + (16u << 20));
  double best = 1e9;
  double copied = 1e9;
  const auto call = [&] {
    file.rewind();
    std::iostream stream(&file);
    const double saved = seconds(pool, [&] { engine.save(seq, stream); });
    if (loads) {
      const sequence other = engine.open();
      best = std::min(best, seconds(pool, [&] { engine.load(other, stream); }));
      if (engine.tokens(other, 0) != engine.tokens(seq, 0)) {
        state.SkipWithError("the file has other tokens");
      }
      engine.reclaim(other);
    } else {
      best = std::min(best, saved);
    }
    copied = std::min(copied, seconds(pool, [&] { copy.copy_of(file); }));
  };
  for (auto _ : state) {
    call();
  }
  for (int i = 0; i < 5; ++i) {
    call();
  }
  state.counters["bytes_per_second"] = static_cast<double>(file.written()) / best;
  state.counters["of_copy"] = copied / best;
}

template <class D, class Format>
void add_file(const char* name, int tokens, int heads) {
  for (const bool loads : {false, true}) {
    const std::string full = std::string("file/") + (loads ? "load/" : "save/") + name + "/kv" +
                             std::to_string(heads) + "/d" + std::to_string(Format::k_dim) + "/t" +
                             std::to_string(tokens);
    benchmark::RegisterBenchmark(full.c_str(), [=](benchmark::State& state) {
      run_file<D, Format>(state, loads, tokens, heads);
    })->Unit(benchmark::kMillisecond);
  }
}

// build/: the clusters of one head's prompt. Counter:
//   tokens_per_second
template <class Policy, class Format>
void run_build(benchmark::State& state, int tokens) {
  using D = design<Policy, layout::token_indexed<>, flash::instcsd, transfer::in_storage>;
  const worker_pool pool(1);
  const prompt<Format> x(tokens, 1);
  cpu::engine<D, Format> engine({.layers = 1, .q_heads = 1, .kv_heads = 1},
                                {.bytes = 4 * x.k().size_bytes() + (64u << 20),
                                 .context_tokens = static_cast<std::uint32_t>(tokens)});
  double best = 1e9;
  for (auto _ : state) {
    const sequence seq = engine.open();
    engine.append(seq, 0, x.k(), x.v());
    best = std::min(best, seconds(pool, [&] { engine.build(seq, 0); }));
    const auto& index =
        std::get<attention::cluster_index::state<Format>>(engine.cache().at(seq, 0).summaries(0));
    if (index.chunks() == 0) {
      state.SkipWithError("build made no clusters");
      return;
    }
    engine.reclaim(seq);
  }
  state.counters["tokens_per_second"] = tokens / best;
}

template <class Policy, class Format>
void add_build(const char* name, int tokens) {
  const std::string full = std::string("build/") + name + "/kv1/d" + std::to_string(Format::k_dim) +
                           "/t" + std::to_string(tokens);
  benchmark::RegisterBenchmark(full.c_str(), [=](benchmark::State& state) {
    run_build<Policy, Format>(state, tokens);
  })->Unit(benchmark::kMillisecond);
}

// method/: attention by a method that scores summaries or all of K first, 8 query heads over 2 KV
// heads. Counters:
//   time_over_dense   over that of dense attention on the same pages
//   rel_error         as elsewhere; not of a method that learns from every query
template <class Policy, class Format>
void run_method(benchmark::State& state, int tokens, const Policy& policy) {
  using D = design<Policy, layout::token_indexed<>, flash::instcsd, transfer::in_storage>;
  using cache_type = filled_cache<D, Format>;
  const worker_pool pool(1);
  cache_type cache({8, 2, {tokens}}, policy);
  auto out = cache.make_outputs();
  if constexpr (!attention::learns<typename cache_type::engine_type::summaries>) {
    const double error = cache.error(pool);
    if (!(error <= 64 * std::sqrt(tokens) * 0x1p-24)) {
      state.SkipWithError(("wrong result: relative error " + std::to_string(error)).c_str());
      return;
    }
    state.counters["rel_error"] = error;
  }
  for (auto _ : state) {
    cache.attend(out, pool);
  }
  double dense = 1e9;
  double best = 1e9;
  for (int round = 0; round < 3; ++round) {
    dense = std::min(dense, best_seconds(pool, [&] {
                       cache.template attend_as<cpu::path>(attention::dense{}, out, pool);
                     }));
    best = std::min(best, best_seconds(pool, [&] { cache.attend(out, pool); }));
  }
  state.counters["time_over_dense"] = best / dense;
}

template <class Format, class Policy>
void add_method(const char* name, int tokens, const Policy& policy) {
  const std::string full = std::string("method/") + name + "/q8_kv2/d" +
                           std::to_string(Format::k_dim) + "/t" + std::to_string(tokens);
  benchmark::RegisterBenchmark(full.c_str(), [=](benchmark::State& state) {
    run_method<Policy, Format>(state, tokens, policy);
  })->Unit(benchmark::kMillisecond);
}

}  // namespace instinfer::bench
