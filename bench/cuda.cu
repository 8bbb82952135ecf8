// The CUDA path: dense, paged and sparse decode attention as shares of what a read-only kernel reaches on the same card.
//
// Names: kind/qQ_kvK/dD/bB/tT/pP: Q query and K KV heads, head size D, B sequences of T tokens, pages of P tokens in random
// order. KV of all copies together is over 10 times the L2, launches go round the copies inside a graph of 20 or more, timed
// by events. Every case first checks two heads against fp64. Counters: bytes_per_second counts K and V (dense) or what the
// sparse method must read once, q and output; of_read_bandwidth is that over the probe, a kernel that only reads as many bytes,
// in the same run; of_nominal over the card's bus width times its clock; vs_dense the time of our dense attention over the case's.
// `home` cases run the engine with pages in device memory, in pinned memory, and through the bounce buffer, and print the
// modelled time of the route beside (model_us).

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>
#include <instinfer/cuda.cuh>

namespace {

using namespace instinfer;
using cuda::check;
using element = fp16;
constexpr std::uint32_t dim = 128;
constexpr std::uint32_t dim_tile = 2;  // dims and tokens of a 4 KiB page of K by dim
constexpr std::uint32_t dim_tile_tokens = 1024;

struct shape {
  std::uint32_t q_heads;
  std::uint32_t kv_heads;
  std::uint32_t batch;
  std::uint32_t tokens;
  std::uint32_t page = 16;
  bool skewed = false;  // the first sequence has all tokens, the others 1024

  std::uint32_t group() const { return q_heads / kv_heads; }
  std::uint32_t tokens_of(std::uint32_t s) const {
    return skewed && s % batch > 0 ? std::min(tokens, 1024u) : tokens;
  }
  std::uint64_t all_tokens() const {
    std::uint64_t sum = 0;
    for (std::uint32_t s = 0; s < batch; ++s) {
      sum += tokens_of(s);
    }
    return sum;
  }
  std::uint64_t kv_bytes() const { return all_tokens() * kv_heads * dim * 2 * sizeof(element); }
  std::uint64_t query_bytes() const {
    return std::uint64_t{2} * batch * q_heads * dim * sizeof(element);
  }
  std::string name() const {
    return "q" + std::to_string(q_heads) + "_kv" + std::to_string(kv_heads) + "/d" +
           std::to_string(dim) + "/b" + std::to_string(batch) + "/t" + std::to_string(tokens) +
           "/p" + std::to_string(page) + (skewed ? "/skewed" : "");
  }
};

// The value of one element: uniform in [-1.7, 1.7], of unit deviation; the same whatever the layout.
__host__ __device__ float value_of(std::uint32_t stream, std::uint32_t sequence, std::uint32_t head,
                                   std::uint32_t token, std::uint32_t i) {
  std::uint64_t x = (std::uint64_t{sequence} << 40) ^ (std::uint64_t{head} << 32) ^
                    (std::uint64_t{token} << 9) ^ (i << 1) ^ stream;
  x = (x ^ (x >> 31)) * 0x9E37'79B9'7F4A'7C15ull;
  x = (x ^ (x >> 29)) * 0xBF58'476D'1CE4'E5B9ull;
  return (static_cast<float>((x >> 40) & 0xFF'FFFF) * 0x1p-23f - 1.0f) * 1.7f;
}

struct fill_arguments {
  element* k;
  element* v;
  element* k_by_dim;  // may be null
  const std::uint32_t* table;
  const std::uint32_t* dim_table;
  std::uint32_t sequences, kv_heads, tokens, page, table_pages, dim_tiles;
};

__global__ void fill(const fill_arguments a) {
  const std::uint64_t all = std::uint64_t{a.sequences} * a.kv_heads * a.tokens * dim;
  for (std::uint64_t n = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; n < all;
       n += std::uint64_t{gridDim.x} * blockDim.x) {
    const auto i = static_cast<std::uint32_t>(n % dim);
    const auto t = static_cast<std::uint32_t>(n / dim % a.tokens);
    const auto h = static_cast<std::uint32_t>(n / dim / a.tokens % a.kv_heads);
    const auto s = static_cast<std::uint32_t>(n / dim / a.tokens / a.kv_heads);
    const std::uint64_t page = a.table[std::uint64_t{s} * a.table_pages + t / a.page];
    const std::uint64_t at = ((page * a.kv_heads + h) * a.page + t % a.page) * dim + i;
    const element k = from_float<element>(value_of(0, s, h, t, i));
    a.k[at] = k;
    a.v[at] = from_float<element>(value_of(1, s, h, t, i));
    if (a.k_by_dim != nullptr) {
      const std::uint64_t tile =
          ((std::uint64_t{s} * a.dim_tiles + t / dim_tile_tokens) * a.kv_heads + h) *
              (dim / dim_tile) +
          i / dim_tile;
      a.k_by_dim[std::uint64_t{a.dim_table[tile]} * dim_tile * dim_tile_tokens +
                 i % dim_tile * dim_tile_tokens + t % dim_tile_tokens] = k;
    }
  }
}

// Reads everything once, eight 16-byte loads in flight a thread, and keeps the sum alive.
__global__ void read_only(const uint4* data, std::uint64_t n, std::uint32_t* sink) {
  const std::uint64_t step = std::uint64_t{gridDim.x} * blockDim.x;
  std::uint32_t sum = 0;
  std::uint64_t i = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  for (; i + 7 * step < n; i += 8 * step) {
    uint4 x[8];
#pragma unroll
    for (int u = 0; u < 8; ++u) {
      x[u] = __ldcs(data + i + u * step);
    }
#pragma unroll
    for (int u = 0; u < 8; ++u) {
      sum ^= x[u].x ^ x[u].y ^ x[u].z ^ x[u].w;
    }
  }
  for (; i < n; i += step) {
    sum ^= data[i].x;
  }
  if (sum == 0x1234'5678u) {
    *sink = sum;
  }
}

template <class T>
cuda::array<T> to_device(const std::vector<T>& host) {
  cuda::array<T> device(host.size());
  check(cudaMemcpy(device.data(), host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice),
        "cudaMemcpy");
  return device;
}
template <class T>
std::vector<T> to_host(const T* from, std::size_t n) {
  std::vector<T> host(n);
  check(cudaMemcpy(host.data(), from, n * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
  return host;
}

// Median seconds of one launch: work(stream, i) for i in [0, launches) captured in a graph, which runs five times.
template <class Work>
double seconds_of(std::uint32_t launches, Work&& work) {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  for (std::uint32_t i = 0; i < launches; ++i) {
    work(stream, i);
  }
  cudaGraph_t graph = nullptr;
  check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
  cudaGraphExec_t run = nullptr;
  check(cudaGraphInstantiate(&run, graph, 0), "cudaGraphInstantiate");
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  std::vector<double> times;
  for (int pass = 0; pass < 7; ++pass) {
    check(cudaEventRecord(begin, stream), "cudaEventRecord");
    check(cudaGraphLaunch(run, stream), "cudaGraphLaunch");
    check(cudaEventRecord(end, stream), "cudaEventRecord");
    check(cudaEventSynchronize(end), "cudaEventSynchronize");
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    if (pass >= 2) {  // two to warm up
      times.push_back(static_cast<double>(ms) / 1e3 / launches);
    }
  }
  check(cudaEventDestroy(begin), "cudaEventDestroy");
  check(cudaEventDestroy(end), "cudaEventDestroy");
  check(cudaGraphExecDestroy(run), "cudaGraphExecDestroy");
  check(cudaGraphDestroy(graph), "cudaGraphDestroy");
  check(cudaStreamDestroy(stream), "cudaStreamDestroy");
  std::ranges::nth_element(times, times.begin() + 2);
  return times[2];
}

double read_bandwidth() {
  static const double best = [] {
    const cuda::device_info device = cuda::current_device();
    const std::uint64_t bytes =
        std::uint64_t{20} * static_cast<unsigned>(device.l2_bytes) / 4096 * 4096;
    const cuda::array<std::byte> data(bytes);
    const cuda::array<std::uint32_t> sink(1);
    check(cudaMemset(data.data(), 1, bytes), "cudaMemset");
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    double fastest = 0;
    for (const unsigned per_sm : {2u, 4u, 8u, 16u}) {
      for (const unsigned threads : {128u, 256u, 512u}) {
        const double s = seconds_of(20, [&](cudaStream_t stream, std::uint32_t) {
          read_only<<<per_sm* static_cast<unsigned>(device.multiprocessors), threads, 0, stream>>>(
              reinterpret_cast<const uint4*>(data.data()), bytes / sizeof(uint4), sink.data());
        });
        fastest = std::max(fastest, static_cast<double>(bytes) / s);
      }
    }
    return fastest;
  }();
  return best;
}

double nominal_bandwidth() {
  const int ordinal = cuda::current_device().ordinal;
  int khz = 0;
  int bits = 0;
  check(cudaDeviceGetAttribute(&khz, cudaDevAttrMemoryClockRate, ordinal),
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&bits, cudaDevAttrGlobalMemoryBusWidth, ordinal),
        "cudaDeviceGetAttribute");
  return 2.0 * khz * 1e3 * bits / 8;
}

// Filled pools for `copies` batches one after the other, HND pages in random order.
struct filled {
  explicit filled(const shape& sh, bool by_dim) : s{sh} {
    const auto l2 = static_cast<std::uint64_t>(cuda::current_device().l2_bytes);
    copies = static_cast<std::uint32_t>(std::max<std::uint64_t>(1, 10 * l2 / s.kv_bytes() + 1));
    sequences = s.batch * copies;
    table_pages = (s.tokens + s.page - 1) / s.page;
    pages = sequences * table_pages;
    dim_tiles = (s.tokens + dim_tile_tokens - 1) / dim_tile_tokens;
    std::mt19937 random(1);
    const auto permutation = [&](std::size_t n) {
      std::vector<std::uint32_t> order(n);
      for (std::size_t i = 0; i < n; ++i) {
        order[i] = static_cast<std::uint32_t>(i);
      }
      std::ranges::shuffle(order, random);
      return order;
    };
    host_table = permutation(pages);
    table = to_device(host_table);
    const std::size_t elements = std::size_t{pages} * s.kv_heads * s.page * dim;
    k = cuda::array<element>(elements);
    v = cuda::array<element>(elements);
    if (by_dim) {
      dim_pages = sequences * dim_tiles * s.kv_heads * (dim / dim_tile);
      dim_table = to_device(permutation(dim_pages));
      k_by_dim = cuda::array<element>(std::size_t{dim_pages} * dim_tile * dim_tile_tokens);
    }
    std::normal_distribution<float> normal;
    host_q.resize(std::size_t{sequences} * s.q_heads * dim);
    for (element& x : host_q) {
      x = from_float<element>(normal(random));
    }
    q = to_device(host_q);
    out = cuda::array<element>(host_q.size());
    std::vector<std::uint32_t> lengths;
    for (std::uint32_t i = 0; i < sequences; ++i) {
      lengths.push_back(s.tokens_of(i));
    }
    tokens = to_device(lengths);
    fill<<<1024, 256>>>({k.data(), v.data(), k_by_dim.data(), table.data(), dim_table.data(),
                         sequences, s.kv_heads, s.tokens, s.page, table_pages, dim_tiles});
    check(cudaDeviceSynchronize(), "fill");
  }

  // The arguments of copy c.
  cuda::attend_arguments<element, element> attend(std::uint32_t c) const {
    const std::uint32_t* t = table.data() + std::size_t{c} * s.batch * table_pages;
    const std::size_t at = std::size_t{c} * s.batch * s.q_heads * dim;
    return {
        .q = q.data() + at,
        .out = out.data() + at,
        .k = cuda::head_major_pages<element>(k.data(), pages, s.page, s.kv_heads, t, table_pages),
        .v = cuda::head_major_pages<element>(v.data(), pages, s.page, s.kv_heads, t, table_pages),
        .tokens = tokens.data() + std::size_t{c} * s.batch,
        .sizes = {s.batch, s.kv_heads, s.group(), s.tokens},
        .scale = 1.0f / std::sqrt(static_cast<float>(dim))};
  }

  // |out - exact| / |exact| of query head 0 of a KV head's group, in fp64, over `seen` tokens (all without a list).
  double error_of(std::uint32_t sequence, std::uint32_t head,
                  const std::vector<std::uint32_t>& seen, double kept,
                  const std::vector<float>& mean) const {
    const std::size_t at = (std::size_t{sequence} * s.q_heads + head * s.group()) * dim;
    std::vector<double> logits;
    for (const std::uint32_t t : seen) {
      double x = 0;
      for (std::uint32_t i = 0; i < dim; ++i) {
        x += static_cast<double>(to_float(host_q[at + i])) *
             static_cast<double>(to_float(from_float<element>(value_of(0, sequence, head, t, i))));
      }
      logits.push_back(x / std::sqrt(static_cast<double>(dim)));
    }
    const double max = *std::ranges::max_element(logits);
    double sum = 0;
    std::vector<double> o(dim);
    for (std::size_t n = 0; n < seen.size(); ++n) {
      const double p = std::exp(logits[n] - max);
      sum += p;
      for (std::uint32_t i = 0; i < dim; ++i) {
        o[i] += p * static_cast<double>(
                        to_float(from_float<element>(value_of(1, sequence, head, seen[n], i))));
      }
    }
    const std::vector<element> mine = to_host(out.data() + at, dim);
    double difference = 0;
    double norm = 0;
    for (std::uint32_t i = 0; i < dim; ++i) {
      const double exact =
          kept * o[i] / sum + (1 - kept) * (mean.empty() ? 0.0 : static_cast<double>(mean[i]));
      difference += std::pow(static_cast<double>(to_float(mine[i])) - exact, 2);
      norm += exact * exact;
    }
    return std::sqrt(difference / norm);
  }

  shape s;
  std::uint32_t copies, sequences, table_pages, pages, dim_tiles, dim_pages = 0;
  std::vector<std::uint32_t> host_table;
  std::vector<element> host_q;
  cuda::array<std::uint32_t> table, dim_table, tokens;
  cuda::array<element> k, v, k_by_dim, q, out;
};

std::map<std::string, double> dense_seconds;  // by shape

// P and the output are rounded to fp16; values of mean 0 make the output small beside the weights' absolute sum.
constexpr double largest_error = 2e-2;

bool fits(const shape& s, bool by_dim) {
  std::size_t free = 0;
  std::size_t total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  const std::uint64_t most =
      std::uint64_t{s.batch} * s.tokens * s.kv_heads * dim * 2 * sizeof(element);
  return (by_dim ? most * 3 / 2 : most) + (std::uint64_t{2} << 30) < free;
}

void report(benchmark::State& state, double seconds, std::uint64_t bytes) {
  for (auto _ : state) {
    state.SetIterationTime(seconds);
  }
  const double rate = static_cast<double>(bytes) / seconds;
  state.counters["us"] = seconds * 1e6;
  state.counters["bytes_per_second"] = rate;
  state.counters["of_read_bandwidth"] = rate / read_bandwidth();
  state.counters["of_nominal"] = rate / nominal_bandwidth();
}

void dense(benchmark::State& state, const shape& s) {
  if (!fits(s, false)) {
    state.SkipWithError("does not fit this card's memory");
    return;
  }
  const filled data(s, false);
  const cuda::attend<element, element, dim> attend;
  const auto workspace = attend.workspace(data.attend(0).sizes);
  attend.check_tables(data.attend(0));
  attend(data.attend(0), workspace);
  check(cudaDeviceSynchronize(), "attend");
  for (const std::uint32_t sequence : {0u, s.batch - 1}) {
    std::vector<std::uint32_t> all(s.tokens_of(sequence));
    for (std::uint32_t t = 0; t < all.size(); ++t) {
      all[t] = t;
    }
    if (const double e = data.error_of(sequence, s.kv_heads - 1, all, 1.0, {});
        !(e < largest_error)) {
      state.SkipWithError(("wrong result, relative error " + std::to_string(e)).c_str());
      return;
    }
  }
  const double seconds =
      seconds_of(std::max(20u, data.copies), [&](cudaStream_t stream, std::uint32_t i) {
        attend(data.attend(i % data.copies), workspace, stream);
      });
  dense_seconds[s.name()] = seconds;
  report(state, seconds, s.kv_bytes() + s.query_bytes());
}

// SparF at compression 8: 16 of 128 dims, 1/16 of the tokens.
void sparf(benchmark::State& state, const shape& s) {
  if (!fits(s, true)) {
    state.SkipWithError("does not fit this card's memory");
    return;
  }
  const filled data(s, true);
  const cuda::attend<element, element, dim> attend;
  const cuda::sparse<element, dim> select;
  const auto workspace = attend.workspace(data.attend(0).sizes);
  constexpr std::uint32_t r = dim / 8;
  const std::uint32_t kept_tokens = cuda::kept_tokens::rounded_up(1.0 / 16, s.tokens);
  const std::size_t items = std::size_t{s.batch} * s.kv_heads;
  const std::int64_t stride =
      (s.tokens + 7 + cuda::score_chunk) / cuda::score_chunk * cuda::score_chunk;
  const cuda::array<std::uint32_t> dims(items * r), keys(items * static_cast<std::size_t>(stride)),
      listed(items * kept_tokens), counts(s.batch);
  const cuda::array<float> logits(items * s.group() * static_cast<std::size_t>(stride)),
      kept(items * s.group());
  const cuda::array<cuda::float_pair> states(items * s.group() *
                                             static_cast<std::size_t>(stride / cuda::score_chunk));
  std::vector<float> means(std::size_t{data.sequences} * s.kv_heads * dim, 0.01f);
  const auto mean = to_device(means);
  const auto run = [&](cudaStream_t stream, std::uint32_t i) {
    const std::uint32_t c = i % data.copies;
    cuda::attend_arguments<element, element> a = data.attend(c);
    const std::uint32_t tile_entries = s.kv_heads * (dim / dim_tile);
    select(
        cuda::sparse_arguments<element>{
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
                  .table_sequence_stride = std::int64_t{data.dim_tiles} * tile_entries},
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
    if (!(e < largest_error)) {
      state.SkipWithError(("wrong result, relative error " + std::to_string(e)).c_str());
      return;
    }
  }
  const double seconds = seconds_of(std::max(20u, data.copies), run);
  const std::uint64_t kept_all = s.skewed ? 0 : std::uint64_t{s.batch} * kept_tokens;
  report(
      state, seconds,
      (s.all_tokens() * r + kept_all * 2 * dim) * s.kv_heads * sizeof(element) + s.query_bytes());
  if (const auto d = dense_seconds.find(s.name()); d != dense_seconds.end()) {
    state.counters["vs_dense"] = d->second / seconds;
  }
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
      route::bytes(done.moved, q.size() * sizeof(element), out.size() * sizeof(element));
  state.counters["model_us"] = route::time(moved, {}).total_ns() / 1e3;
  state.counters["link_bytes"] = static_cast<double>(done.moved.link_bytes);
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

void add(const std::string& kind, const shape& s, void (*run)(benchmark::State&, const shape&)) {
  benchmark::RegisterBenchmark((kind + "/" + s.name()).c_str(),
                               guarded([s, run](benchmark::State& state) { run(state, s); }))
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

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  try {
    const cuda::device_info device = cuda::current_device();
    cudaDeviceProp properties;
    check(cudaGetDeviceProperties(&properties, device.ordinal), "cudaGetDeviceProperties");
    std::printf(
        "%s, sm_%d, %d SMs, L2 %d MB, nominal %.0f GB/s, read-only probe %.0f GB/s (GB = 1e9 bytes), fp16\n",
        properties.name, device.capability, device.multiprocessors, device.l2_bytes >> 20,
        nominal_bandwidth() / 1e9, read_bandwidth() / 1e9);
  } catch (const error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
  for (const auto& [q, kv] : {std::pair{32u, 32u}, {32u, 8u}, {64u, 8u}, {28u, 4u}, {8u, 1u}}) {
    for (const std::uint32_t batch : {1u, 4u, 16u, 64u, 256u}) {
      for (const std::uint32_t tokens : {1024u, 4096u, 8192u, 32768u, 131072u}) {
        add("dense", {q, kv, batch, tokens}, dense);
        add("sparf", {q, kv, batch, tokens}, sparf);
      }
    }
  }
  for (const std::uint32_t page : {1u, 64u, 128u, 256u}) {
    add("dense", {32, 8, 16, 8192, page}, dense);
  }
  // One of 128 K among 63 of 1 K, and an even batch of the same bytes: 64 of 3056.
  add("dense", {32, 8, 64, 131072, 16, true}, dense);
  add("dense", {32, 8, 64, 3056}, dense);
  for (const std::uint32_t tokens : {4096u, 32768u}) {
    add_home<insta>("device", tokens);
    add_home<flexgen_gds>("pinned", tokens);
    add_home<flexgen>("bounce", tokens);
    add_home<insta_sparf>("sparf_device", tokens);
    add_home<flexgen_sparq>("sparq_bounce", tokens);
  }
  benchmark::RunSpecifiedBenchmarks();
}
