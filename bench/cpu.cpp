// The CPU path: dense and sparse decode attention against the machine's own read bandwidth.
//
// Every case first checks its result against fp64 on the stored values. Counters: bytes_per_second counts each byte of K
// and V (dense) once; of_read_bandwidth is that over a streaming read of as many bytes by as many threads in this process;
// vs_dense is the time of our dense attention on the same cache over the case's time; time_over_f16, for quantised pages, the
// case's time over that of fp16 pages of the same shape.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <benchmark/benchmark.h>

#include <instinfer/core/int4_groups.hpp>
#include <instinfer/core/scaled_pages.hpp>
#include <instinfer/cpu.hpp>
#include <instinfer/reference.hpp>

namespace {

using namespace instinfer;
using clock_type = std::chrono::steady_clock;

double seconds(const std::function<void()>& work) {
  const auto begin = clock_type::now();
  work();
  return std::chrono::duration<double>(clock_type::now() - begin).count();
}

// One task a worker, on plain threads that live for the call.
auto threads(std::size_t n) {
  return parallel::on_pool(n, [n](std::size_t count, auto&& task) {
    std::vector<std::jthread> pool;
    for (std::size_t w = 1; w < n; ++w) {
      pool.emplace_back([&, w] {
        for (std::size_t i = w; i < count; i += n) {
          task(i, w);
        }
      });
    }
    for (std::size_t i = 0; i < count; i += n) {
      task(i, std::size_t{0});
    }
  });
}

// Best rate of a streaming read of `bytes`, in bytes per second: with and without software prefetch, from huge pages where
// the system gives them, as the cache's store has.
double read_bandwidth(std::size_t bytes, std::size_t workers) {
  constexpr std::size_t page_bytes = 4096;
  static std::unique_ptr<store::memory> buffer;
  if (!buffer || buffer->capacity_pages() * page_bytes < bytes) {
    buffer = std::make_unique<store::memory>(1, bytes / page_bytes + 1, std::uint32_t{page_bytes});
    for (std::uint64_t i = 0; i < buffer->capacity_pages(); ++i) {
      std::ranges::fill(buffer->write(buffer->allocate(0)), std::byte{1});
    }
  }
  const auto* data = reinterpret_cast<const float*>(buffer->view(page_id{0}).data());
  const std::size_t part = bytes / sizeof(float) / workers / 1024 * 1024;
  std::vector<float> sums(workers);
  double best = 1e9;
  for (int pass = 0; pass < 8; ++pass) {
    best = std::min(best, seconds([&] {
                      threads(workers).for_each(workers, [&](std::size_t worker, std::size_t) {
                        sums[worker] =
                            cpu::sum_of(data + worker * part, part, pass % 2 == 0 ? 0 : 256);
                      });
                    }));
  }
  benchmark::DoNotOptimize(sums.data());
  return static_cast<double>(part * workers * sizeof(float)) / best;
}

struct shape {
  int q_heads;
  int kv_heads;
  int tokens;
};

// A filled cache of one layer and its queries.
template <class D, class Format>
class filled_cache {
 public:
  using engine_type = cpu::engine<D, Format>;
  using element = typename Format::element;

  explicit filled_cache(const shape& s, const typename D::attention_policy& policy = {})
      : shape_{s},
        engine_({.layers = 1, .q_heads = s.q_heads, .kv_heads = s.kv_heads},
                {.bytes = static_cast<std::uint64_t>(s.tokens) *
                              static_cast<std::uint64_t>(s.kv_heads * Format::token_bytes) * 7 / 4 +
                          (64u << 20),
                 .context_tokens = static_cast<std::uint32_t>(s.tokens)},
                policy) {
    std::normal_distribution<float> normal;
    std::mt19937 random(1);
    // A long random vector, appended from ever other offsets: drawing every value anew takes minutes at 128 K tokens.
    std::vector<element> values(1u << 22);
    for (element& x : values) {
      x = from_float<element>(normal(random));
    }
    q_.resize(static_cast<std::size_t>(s.q_heads * Format::k_dim));
    for (float& x : q_) {
      x = normal(random);
    }
    sequence_ = engine_.open();
    const auto row = static_cast<std::size_t>(s.kv_heads * Format::k_dim);
    const int chunk =
        (1 << 21) / static_cast<int>(row);  // prompts come in chunks of some hundred tokens
    for (int t = 0; t < s.tokens; t += chunk) {
      const std::size_t n = static_cast<std::size_t>(std::min(chunk, s.tokens - t)) * row;
      const auto draw = [&] {
        return std::span(values).subspan(random() % (values.size() - n), n);
      };
      engine_.append(sequence_, 0, draw(), draw());
    }
  }

  void attend(std::span<float> out, std::size_t workers) {
    if (workers == 1) {
      engine_.attend(sequence_, 0, q_, out, scratch_, parallel::serial{});
    } else {
      engine_.attend(sequence_, 0, q_, out, scratch_, threads(workers));
    }
  }
  std::size_t out_size() const { return static_cast<std::size_t>(shape_.q_heads * Format::v_dim); }

  // The largest relative error of a query head against the reference path's arithmetic on the same pages.
  double error() {
    std::vector<float> out(out_size());
    std::vector<float> exact(out_size());
    attend(out, 1);
    reference_attend(exact);
    double worst = 0;
    for (std::size_t h = 0; h < static_cast<std::size_t>(shape_.q_heads); ++h) {
      double difference = 0;
      double norm = 0;
      for (std::size_t i = h * Format::v_dim; i < (h + 1) * Format::v_dim; ++i) {
        difference += std::pow(static_cast<double>(out[i]) - static_cast<double>(exact[i]), 2);
        norm += std::pow(static_cast<double>(exact[i]), 2);
      }
      worst = std::max(worst, std::sqrt(difference / norm));
    }
    return worst;
  }

 private:
  // fp64 dense attention over the pages as stored; for sparse policies over what they fold, by the reference arithmetic.
  void reference_attend(std::span<float> exact) const {
    const auto& cache = engine_.cache();
    const auto& layer = cache.at(sequence_, 0);
    reference::arithmetic<Format> arithmetic;
    attention::machine_scratch scratch;
    const auto group = static_cast<std::size_t>(shape_.q_heads / shape_.kv_heads);
    for (std::size_t h = 0; h < static_cast<std::size_t>(shape_.kv_heads); ++h) {
      const layout::head_pages head = layer.head(static_cast<std::uint32_t>(h));
      const typename engine_type::cache_type::page_views pages{cache, head};
      const attention::query_group query{
          std::span(q_).subspan(h * group * Format::k_dim, group * Format::k_dim),
          static_cast<std::uint32_t>(group), engine_.logits()};
      attention::no_observer watch;
      traffic moved;
      arithmetic.begin(query, head);
      attention::machine machine(arithmetic, head, pages,
                                 layer.summaries(static_cast<std::uint32_t>(h)), scratch, moved,
                                 watch);
      engine_.attention()(machine, query);
      arithmetic.finish(exact.subspan(h * group * Format::v_dim, group * Format::v_dim));
    }
  }

  shape shape_;
  engine_type engine_;
  sequence sequence_;
  typename engine_type::scratch scratch_;
  std::vector<float> q_;
};

template <class D, class Format>
double best_seconds(filled_cache<D, Format>& cache, std::size_t workers) {
  std::vector<float> out(cache.out_size());
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    best = std::min(best, seconds([&] { cache.attend(out, workers); }));
  }
  return best;
}

// Caches are built on first use and dropped when another one is needed: they are large.
template <class D, class Format>
filled_cache<D, Format>& cached(const shape& s, const typename D::attention_policy& policy,
                                double compression) {
  static std::unique_ptr<filled_cache<D, Format>> cache;
  static std::tuple<int, int, int, double> key;
  const std::tuple wanted{s.q_heads, s.kv_heads, s.tokens, compression};
  if (!cache || key != wanted) {
    cache.reset();
    cache = std::make_unique<filled_cache<D, Format>>(s, policy);
    key = wanted;
  }
  return *cache;
}

template <class Format>
std::string name_of(const char* method, const shape& s, const std::string& more,
                    std::size_t workers) {
  const std::string stored = Format::codec::name;  // fp16, bf16, int8: f16, bf16, i8
  const std::string short_name =
      stored[0] == 'b' ? stored
                       : stored.front() + stored.substr(stored.find_first_of("0123456789"));
  return std::string(method) + "/" + short_name + "/q" + std::to_string(s.q_heads) + "_kv" +
         std::to_string(s.kv_heads) + "/d" + std::to_string(Format::k_dim) + "/t" +
         std::to_string(s.tokens) + more + "/threads:" + std::to_string(workers);
}

template <class D, class Format>
void run(benchmark::State& state, const shape& s, double compression, std::size_t workers) {
  typename D::attention_policy policy{};
  if constexpr (requires { D::attention_policy::at_compression(compression); }) {
    policy = D::attention_policy::at_compression(compression);
  }
  filled_cache<D, Format>& cache = cached<D, Format>(s, policy, compression);
  const double error = cache.error();
  const double bound = 64 * std::sqrt(static_cast<double>(s.tokens)) * 0x1p-24;
  if (!(error <= bound)) {
    state.SkipWithError(("wrong result: relative error " + std::to_string(error)).c_str());
    return;
  }
  const double bytes = static_cast<double>(s.tokens) * s.kv_heads * Format::token_bytes;
  std::vector<float> out(cache.out_size());
  for (auto _ : state) {
    cache.attend(out, workers);
    benchmark::DoNotOptimize(out.data());
  }
  const double best = best_seconds(cache, workers);
  state.counters["rel_error"] = error;
  state.counters["bytes_per_second"] = bytes / best;
  if constexpr (std::is_same_v<typename D::attention_policy, attention::dense>) {
    state.counters["of_read_bandwidth"] =
        bytes / best / read_bandwidth(static_cast<std::size_t>(bytes), workers);
    if constexpr (!Format::plain) {
      using f16 = kv_format<fp16, Format::k_dim, Format::v_dim>;
      state.counters["time_over_f16"] = best / best_seconds(cached<D, f16>(s, policy, 1), workers);
    }
  } else {
    // Dense attention over the token-indexed copies of the same cache.
    using dense_design =
        design<attention::dense, typename D::layout_policy, D::drive, typename D::transfer_policy>;
    filled_cache<dense_design, Format>& dense = cached<dense_design, Format>(s, {}, 1);
    state.counters["vs_dense"] = best_seconds(dense, workers) / best;
  }
}

template <class D, class Format>
void add(const char* method, const shape& s, double compression,
         std::initializer_list<std::size_t> worker_counts) {
  for (const std::size_t workers : worker_counts) {
    const std::string more =
        compression > 1 ? "/c" + std::to_string(static_cast<int>(compression)) : "";
    benchmark::RegisterBenchmark(
        name_of<Format>(method, s, more, workers).c_str(),
        [=](benchmark::State& state) { run<D, Format>(state, s, compression, workers); })
        ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace

int main(int argc, char** argv) {
  using f16 = kv_format<fp16, 128>;
  add<insta, f16>("dense", {32, 32, 32768}, 1, {1, 2});
  add<insta, f16>("dense", {32, 8, 32768}, 1, {1, 2});
  add<insta, f16>("dense", {64, 8, 32768}, 1, {1, 2});
  add<insta, kv_format<bf16, 128>>("dense", {32, 32, 32768}, 1, {1});
  add<insta, kv_format<fp32, 128>>("dense", {32, 32, 32768}, 1, {1});
  add<insta, kv_format<int8_pages<fp16>, 128>>("dense", {32, 32, 32768}, 1, {1});
  add<insta, kv_format<fp8_pages<fp16>, 128>>("dense", {32, 32, 32768}, 1, {1});
  add<insta, kv_format<int4_groups<fp16>, 128>>("dense", {32, 32, 32768}, 1, {1});
  add<insta, f16>("dense", {32, 8, 1024}, 1, {1});
  add<insta_sparf, f16>("sparf", {32, 32, 32768}, 8, {1, 2});
  add<insta_sparf, f16>("sparf", {32, 8, 32768}, 8, {1, 2});
  benchmark::Initialize(&argc, argv);
  benchmark::AddCustomContext("simd_target", cpu::target_name());
  benchmark::AddCustomContext("compiler", __VERSION__);
  benchmark::RunSpecifiedBenchmarks();
}
