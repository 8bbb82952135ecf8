// The CUDA path: decode attention as shares of what a read-only kernel reaches on the same card.
//
// Names: kind/qQ_kvK/dD/bB/tT/pP: Q query and K KV heads, head size D, B sequences of T tokens,
// pages of P tokens in random order; skewed: one sequence of T tokens, the others of 1024.
// Kinds: dense (fp16), sparf (16 of 128 dims, 1/16 of the tokens); dense_fp8, dense_int8, sparf_fp8
// (pages of codes with scales); dense_bulk (bulk copies of sm_90 in place of cp.async); home (the
// engine with pages in device memory, in pinned memory, and through the bounce buffer; prints the
// modelled time of the route, too: model_us).
//
// KV of all copies together is over 10 times the L2. Launches go round the copies inside a graph of
// 20 or more, timed by events: the median of five runs. Every case first checks two heads against
// fp64; one that does not fit the card's memory says so. Counters:
//   bytes_per_second    K and V (dense) or what the sparse method must read once, q and output
//   of_read_bandwidth   that over the probe, a kernel that only reads, in the same run
//   of_nominal          that over the card's bus width times its clock
//   vs_dense            the time of our dense fp16 attention over the case's
// At the end the targets, each with the worst case that ran.
//
// All of it: 390 cases. Fewer, with every target among them:
// --benchmark_filter='b(1|16|64)/t(8192|32768|131072)|/p256|t3056|skewed'

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <instinfer/cuda.cuh>
#include <instinfer/cuda/launch/bulk_lane.cuh>

#include "cuda/data.cuh"
#include "cuda/targets.hpp"
#include "cuda/timing.cuh"
#include "run_benchmarks.hpp"
#include "support/program.hpp"

namespace {

using namespace bench;

std::vector<measured> results;

// P and the output are rounded to fp16; values of mean 0 make the output small against the weights'
// absolute sum.
constexpr double largest_error = 2e-2;

// Whether the card has room for the pools of all copies, `more` bytes, and a gigabyte for
// everything else.
template <class Code>
bool fits(benchmark::State& state, const shape& s, bool by_dim, std::uint64_t more = 0) {
  std::size_t free = 0;
  std::size_t total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  const std::uint64_t pools = filled<Code>::copies_of(s) * s.kv_bytes(sizeof(Code));
  const std::uint64_t needed = (by_dim ? pools / 2 * 3 : pools) + more + (std::uint64_t{1} << 30);
  if (needed > free) {
    state.SkipWithError(("does not fit: needs " + std::to_string(needed >> 20) + " MB, free are " +
                         std::to_string(free >> 20) + " MB")
                            .c_str());
  }
  return needed <= free;
}

// Seconds of our dense fp16 attention over a shape; 0 where it did not run before.
double dense_seconds(const shape& s) {
  const auto found = std::ranges::find_if(
      results, [&](const measured& m) { return m.kind == "dense" && m.s.name() == s.name(); });
  return found == results.end() ? 0.0 : found->seconds;
}

void report(benchmark::State& state, const std::string& kind, const shape& s, double seconds,
            std::uint64_t bytes, double dense = 0) {
  for (auto _ : state) {
    state.SetIterationTime(seconds);
  }
  const double rate = static_cast<double>(bytes) / seconds;
  const measured m{kind,           s, seconds, rate / read_bandwidth(), rate / nominal_bandwidth(),
                   dense / seconds};
  results.push_back(m);
  state.counters["us"] = seconds * 1e6;
  state.counters["bytes_per_second"] = rate;
  state.counters["of_read_bandwidth"] = m.of_read;
  state.counters["of_nominal"] = m.of_nominal;
  if (dense > 0) {
    state.counters["vs_dense"] = m.vs_dense;
  }
}

// Whether the result is right; the case ends if not.
bool right(benchmark::State& state, double error) {
  if (!(error < largest_error)) {
    state.SkipWithError(("wrong result, relative error " + std::to_string(error)).c_str());
  }
  return error < largest_error;
}

template <class Code, class Copies>
double time_dense(const filled<Code>& data,
                  const cuda::attend<element, element, dim, Code, Copies>& attend,
                  const cuda::array<std::byte>& workspace) {
  return seconds_of(std::max(20u, data.copies), [&](cudaStream_t stream, std::uint32_t i) {
    attend(data.attend(i % data.copies), workspace, stream);
  });
}

template <class Code, class Copies = cuda::lane_copies>
void dense(benchmark::State& state, const std::string& kind, const shape& s) {
  if (!fits<Code>(state, s, false)) {
    return;
  }
  const cuda::attend<element, element, dim, Code, Copies> attend;
  const filled<Code> data(s, false);
  const auto workspace = attend.workspace(data.attend(0).sizes);
  attend.check_tables(data.attend(0));
  attend(data.attend(0), workspace);
  check(cudaDeviceSynchronize(), "attend");
  for (const std::uint32_t sequence : {0u, s.batch - 1}) {
    std::vector<std::uint32_t> all(s.tokens_of(sequence));
    std::iota(all.begin(), all.end(), 0u);
    if (!right(state, data.error_of(sequence, s.kv_heads - 1, all, 1.0, {}))) {
      return;
    }
  }
  const double seconds = time_dense(data, attend, workspace);
  report(state, kind, s, seconds, s.kv_bytes(sizeof(Code)) + s.query_bytes(),
         kind == "dense" ? 0 : dense_seconds(s));
}

// SparF at compression 8: 16 of 128 dims, 1/16 of the tokens.
template <class Code>
void sparf(benchmark::State& state, const std::string& kind, const shape& s) {
  const std::int64_t stride =
      (s.tokens + 7 + cuda::score_segment) / cuda::score_segment * cuda::score_segment;
  // Logits of every query head, keys of every KV head.
  if (!fits<Code>(state, s, true,
                  std::uint64_t{4} * s.batch * (s.q_heads + s.kv_heads) *
                      static_cast<std::uint64_t>(stride))) {
    return;
  }
  const filled<Code> data(s, true);
  const cuda::attend<element, element, dim, Code> attend;
  const cuda::sparse<element, dim, Code> select;
  const auto workspace = attend.workspace(data.attend(0).sizes);
  constexpr std::uint32_t r = dim / 8;
  const std::uint32_t kept_tokens = cuda::kept_tokens::rounded_up(1.0 / 16, s.tokens);
  const std::size_t items = std::size_t{s.batch} * s.kv_heads;
  const cuda::array<std::uint32_t> dims(items * r), keys(items * static_cast<std::size_t>(stride)),
      listed(items * kept_tokens), counts(s.batch);
  const cuda::array<float> logits(items * s.group() * static_cast<std::size_t>(stride)),
      kept(items * s.group());
  const cuda::array<cuda::float_pair> states(
      items * s.group() * static_cast<std::size_t>(stride / cuda::score_segment));
  std::vector<float> means(std::size_t{data.sequences} * s.kv_heads * dim, 0.01f);
  const auto mean = to_device(means);
  const auto run = [&](cudaStream_t stream, std::uint32_t i) {
    const std::uint32_t c = i % data.copies;
    cuda::attend_arguments<element, element, Code> a = data.attend(c);
    const std::uint32_t tile_entries = s.kv_heads * (dim / dim_tile);
    select(
        cuda::sparse_arguments<element, Code>{
            .q = a.q,
            .k = {.pages = data.k_by_dim.data(),
                  .page_elements = dim_tile * dim_tile_tokens,
                  .page_count = data.dim_pages,
                  .tile_tokens = cuda::divisor(dim_tile_tokens),
                  .tile_dims = cuda::divisor(dim_tile),
                  .token_stride = 1,
                  .dim_stride = dim_tile_tokens,
                  .dim_tiles = dim / dim_tile,
                  .table = data.dim_table.data() +
                           std::size_t{c} * s.batch * data.dim_tiles * tile_entries,
                  .table_tiles = data.dim_tiles,
                  .table_tile_stride = tile_entries,
                  .table_sequence_stride = std::int64_t{data.dim_tiles} * tile_entries,
                  .scales = data.dim_scales.data()},
            .tokens = a.tokens,
            .sizes = a.sizes,
            .scale = a.scale,
            .keep_dims = r,
            .keep = {.share = 1.0 / 16},
            .dims = dims.data(),
            .logits = logits.data(),
            .logit_stride = stride,
            .states = states.data(),
            .keys = keys.data(),
            .listed = listed.data(),
            .listed_counts = counts.data(),
            .list_stride = kept_tokens,
            .kept = kept.data(),
            .status = reinterpret_cast<std::uint32_t*>(workspace.data())},
        stream);
    a.listed = listed.data();
    a.listed_counts = counts.data();
    a.list_stride = kept_tokens;
    a.sizes.most_positions = kept_tokens;
    a.kept = kept.data();
    a.mean_v = mean.data();
    attend(a, workspace, stream);
  };
  run(nullptr, 0);
  check(cudaDeviceSynchronize(), "sparf");
  for (const std::size_t item : {std::size_t{0}, items - 1}) {
    const auto sequence = static_cast<std::uint32_t>(item / s.kv_heads);
    const std::uint32_t n = cuda::kept_tokens::rounded_up(1.0 / 16, s.tokens_of(sequence));
    const std::vector<std::uint32_t> list = to_host(listed.data() + item * kept_tokens, n);
    const double alpha = static_cast<double>(to_host(kept.data() + item * s.group(), 1)[0]);
    const double e = data.error_of(sequence, static_cast<std::uint32_t>(item % s.kv_heads), list,
                                   alpha, std::vector<float>(dim, 0.01f));
    if (!right(state, e)) {
      return;
    }
  }
  const double seconds = seconds_of(std::max(20u, data.copies), run);
  double dense = dense_seconds(s);
  if constexpr (!cuda::is_coded<Code>) {
    dense = dense > 0 ? dense : time_dense(data, attend, workspace);
  }
  report(state, kind, s, seconds,
         (s.all_tokens() * r + std::uint64_t{s.batch} * kept_tokens * 2 * dim) * s.kv_heads *
                 sizeof(Code) +
             s.query_bytes(),
         dense);
}

// The engine, host time from call to result, beside the modelled time of the same route.
template <class D>
void home(benchmark::State& state, std::uint32_t tokens) {
  const model_shape model{.layers = 1, .q_heads = 32, .kv_heads = 8};
  const std::size_t n = std::size_t{tokens} * 8 * dim;
  cuda::engine<D> engine(model, {.bytes = n * sizeof(element) * 4, .context_tokens = tokens});
  std::vector<element> x(n);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < n; ++i) {
    x[i] = i < 1'000'000 ? from_float<element>(normal(random)) : x[i - 1'000'000];
  }
  const sequence seq = engine.open();
  engine.append(seq, 0, x, x);
  std::vector<float> q(32 * dim, 0.5f);
  std::vector<float> out(q.size());
  receipt done;
  for (auto _ : state) {
    done = engine.attend(seq, 0, q, out);
  }
  using route = typename D::transfer_policy;
  const transfer::link_bytes moved =
      route::bytes(done.traffic, q.size() * sizeof(element), out.size() * sizeof(element));
  state.counters["model_us"] = route::time(moved, {}).total_ns() / 1e3;
  state.counters["link_bytes"] = static_cast<double>(done.traffic.link_bytes);
}

// The case ends with the error's text where something throws.
template <class Run>
auto guarded(Run run) {
  return [run](benchmark::State& state) {
    try {
      run(state);
    } catch (const error& e) {
      state.SkipWithError(e.what());
    }
  };
}

using run_case = void (*)(benchmark::State&, const std::string& kind, const shape&);

void add(const std::string& kind, const shape& s, run_case run) {
  benchmark::RegisterBenchmark(
      (kind + "/" + s.name()).c_str(),
      guarded([kind, s, run](benchmark::State& state) { run(state, kind, s); }))
      ->UseManualTime()
      ->Iterations(1);
}

template <class D>
void add_home(const std::string& name, std::uint32_t tokens) {
  benchmark::RegisterBenchmark(
      ("home/" + name + "/t" + std::to_string(tokens)).c_str(),
      guarded([tokens](benchmark::State& state) { home<D>(state, tokens); }))
      ->UseRealTime();
}

void print_device() {
  const cuda::device_info device = cuda::current_device();
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, device.ordinal), "cudaGetDeviceProperties");
  std::printf(
      "%s, sm_%d, %d SMs, L2 %d MB, nominal %.0f GB/s, read-only probe %.0f GB/s (GB = 1e9 bytes), fp16\n",
      properties.name, device.capability, device.multiprocessors, device.l2_bytes >> 20,
      nominal_bandwidth() / 1e9, read_bandwidth() / 1e9);
}

void add_all() {
  const run_case fp16_pages = dense<element>;
  for (const auto& [q, kv] : {std::pair{32u, 32u}, {32u, 8u}, {64u, 8u}, {28u, 4u}, {8u, 1u}}) {
    for (const std::uint32_t batch : {1u, 4u, 16u, 64u, 256u}) {
      for (const std::uint32_t tokens : {1024u, 4096u, 8192u, 32768u, 131072u}) {
        const shape s{q, kv, batch, tokens};
        add("dense", s, fp16_pages);
        add("sparf", s, sparf<element>);
        if (tokens >= 8192 && kv == 8) {
          add("dense_fp8", s, dense<fp8>);
          add("dense_int8", s, dense<std::int8_t>);
          add("sparf_fp8", s, sparf<fp8>);
          add("dense_bulk", s, dense<element, cuda::bulk_copies>);
        }
      }
    }
  }
  for (const std::uint32_t page : {1u, 64u, 128u, 256u}) {
    add("dense", {32, 8, 16, 8192, page}, fp16_pages);
    add("dense_bulk", {32, 8, 16, 8192, page}, dense<element, cuda::bulk_copies>);
  }
  // One of 128 K among 63 of 1 K, and an even batch of the same bytes: 64 of 3056.
  add("dense", {32, 8, 64, 131072, 16, true}, fp16_pages);
  add("dense", {32, 8, 64, 3056}, fp16_pages);
  for (const std::uint32_t tokens : {4096u, 32768u}) {
    add_home<insta>("device", tokens);
    add_home<flexgen_gds>("pinned", tokens);
    add_home<flexgen>("bounce", tokens);
    add_home<insta_sparf>("sparf_device", tokens);
    add_home<flexgen_sparq>("sparq_bounce", tokens);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("bench_cuda", [&] {
    const int status = instinfer::bench::run_benchmarks(argc, argv, [] {
      print_device();
      add_all();
    });
    targets(results).print();
    return status;
  });
}
