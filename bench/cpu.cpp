// The CPU path: dense and sparse decode attention against the processor's own read bandwidth.
//
// Every case first checks its result against fp64 on the stored values. Counters, from the best
// call (one thread: by its processor time; more: by wall time):
//   bytes_per_second    each byte of K and V (dense) once
//   of_read_bandwidth   that over a streaming read of as many bytes by as many threads
//   of_roof             the time that reads or multiply-adds of fp32 take at least, over ours
//   rel_error           of the worst query head, in the 2-norm
//   vs_dense            sparse cases: the time of our dense attention on the same pages over theirs
//   of_gather_bandwidth sparse cases: the time of reading the same rows and columns, in the same
//                       order and with the best prefetch, over theirs
//   cycles_per_token, bytes_per_cycle  one thread; a token is one of one KV head. By the system's
//                       count where it lets programs count, and then with instructions,
//                       cache_misses and tlb_misses of a token; otherwise by the measured clock
//   time_over_f16       quantised pages: the time over that of fp16 pages of the same shape
//   of_copy             append/, file/: a copy of the same bytes over the call (cpu_calls.hpp)
//   time_over_dense     method/: the time over that of dense attention on the same pages
//   vs_single           several new tokens at once: the time of as many single queries over theirs
//
// Names: method/element/q<query heads>_kv<KV heads>/d<head size>/t<tokens of each
// sequence>/.../threads:<n>; fused/: K and V of a token in one page; latent/: V is the first 512 of
// K's 576 dims, also in DeepSeek's fp8; latent_rounded/: with q and weights rounded to bf16;
// latent_by_rows/: without matrix tiles; n4: 4 new tokens at once; c8: 1/8 of the dense bytes.
// eigen/ and scalar/ are baselines over contiguous arrays.

#include <instinfer/codec/fp8_latent_rows.hpp>
#include <instinfer/codec/int4_groups.hpp>
#include <instinfer/codec/scaled_pages.hpp>
#include <instinfer/layout/fused.hpp>
#include <instinfer/methods.hpp>

#include "baselines.hpp"
#include "cpu_calls.hpp"
#include "cpu_cases.hpp"
#include "run_benchmarks.hpp"
#include "support/program.hpp"

namespace {

using namespace instinfer;
using namespace instinfer::bench;

template <class Storage>
void add_baseline(const char* method, const char* element, const shape& s,
                  std::initializer_list<std::size_t> threads) {
  for (const std::size_t workers : threads) {
    const std::string name = std::string(method) + "/" + element + "/" + s.name() +
                             "/threads:" + std::to_string(workers);
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
      const worker_pool& pool = pool_of(workers);
      using cache_type = contiguous_cache<Storage>;
      cache_type& cache = kept<cache_type>(s, [&] { return std::make_unique<cache_type>(s); });
      const double error = cache.error(cache.attend(pool));
      if (!(error <= 1e-3)) {
        state.SkipWithError(("wrong result: relative error " + std::to_string(error)).c_str());
        return;
      }
      const double best =
          best_of(state, pool, [&] { benchmark::DoNotOptimize(cache.attend(pool)); });
      const double bandwidth = read_bandwidth(static_cast<std::size_t>(cache.bytes()), pool);
      state.counters["bytes_per_second"] = cache.bytes() / best;
      state.counters["of_read_bandwidth"] = cache.bytes() / best / bandwidth;
      state.counters["rel_error"] = error;
    })->Unit(benchmark::kMillisecond);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("bench_cpu", [&] {
    using f16 = kv_format<fp16, 128>;
    constexpr std::pair<int, int> heads[] = {{32, 32}, {32, 8}, {64, 8}, {8, 1}};
    for (const int tokens : {32768, 4096, 1024, 256}) {
      for (const auto& [q, kv] : heads) {
        add<insta, f16>("dense", {q, kv, {tokens}}, {1, 2});
      }
    }
    add<insta, kv_format<bf16, 128>>("dense", {32, 32, {32768}}, {1, 2});
    add<insta, kv_format<bf16, 128>>("dense", {32, 8, {32768}}, {1});
    add<insta, kv_format<fp32, 128>>("dense", {32, 32, {32768}}, {1, 2});
    add<insta, kv_format<int8_pages<fp16>, 128>>("dense", {32, 32, {32768}}, {1});
    add<insta, kv_format<fp8_pages<fp16>, 128>>("dense", {32, 32, {32768}}, {1});
    add<insta, kv_format<int4_groups<fp16>, 128>>("dense", {32, 32, {32768}}, {1});
    for (const int queries : {2, 4, 8}) {  // speculative decode
      add<insta, f16>("dense", {32, 8, {32768}, queries}, {1});
    }
    // K and V of a token in one page, and rows that are both (DeepSeek's shape).
    using fused = design<attention::dense, layout::fused<>, flash::instcsd, transfer::in_storage>;
    using fused_sparf =
        design<attention::sparf, layout::fused_dual<>, flash::instcsd, transfer::in_storage>;
    add<fused, f16>("fused", {32, 32, {32768}}, {1, 2});
    add<fused, f16>("fused", {32, 8, {32768}}, {1});
    add<fused_sparf, f16>("fused_sparf", {32, 32, {32768}}, {1}, 8);
    for (const int queries : {16, 64, 128}) {
      using latent = latent_format<bf16, 576, 512>;
      using rounded = cpu::tuned_path<cpu::tuning{.matrix_parts = 1}>;
      add<insta, latent>("latent", {queries, 1, {32768}}, {1, 2});
      add<insta, latent, rounded>("latent_rounded", {queries, 1, {32768}}, {1, 2});
      using deepseek = latent_format<fp8_latent_rows, 576, 512>;
      using by_rows = cpu::tuned_path<cpu::tuning{.matrix_heads = 1000}>;
      add<insta, deepseek>("latent", {queries, 1, {32768}}, {1});
      add<insta, deepseek, by_rows>("latent_by_rows", {queries, 1, {32768}}, {1});
      add<insta, latent, by_rows>("latent_by_rows", {queries, 1, {32768}}, {1});
    }
    // Skewed batches: whole heads cannot be dealt evenly.
    add<insta, f16>("dense", {8, 1, {32768, 1024, 1024, 1024}}, {1, 2});
    add<insta, f16>("dense", {8, 2, {16384, 4096, 4096, 2048, 2048, 1024, 1024}}, {1, 2});
    add<insta_sparf, f16>("sparf", {32, 32, {32768}}, {1, 2}, 8);
    add<insta_sparf, f16>("sparf", {32, 8, {32768}}, {1, 2}, 8);
    add<insta_sparf, f16>("sparf", {32, 32, {131072}}, {1}, 8);
    add<insta_sparf, f16>("sparf", {8, 1, {131072}}, {1, 2}, 8);
    for (const auto& [q, kv] : {heads[0], heads[1]}) {
      add_baseline<float>("eigen", "f32", {q, kv, {32768}}, {1, 2});
      add_baseline<Eigen::half>("eigen", "f16", {q, kv, {32768}}, {1, 2});
      add_baseline<fp16>("scalar", "f16", {q, kv, {32768}}, {1});
    }
    using dual = design<attention::dense, layout::dual<>, flash::instcsd, transfer::in_storage>;
    add_append<insta, f16>("f16", 32768, 8);
    add_append<dual, f16>("f16_dual", 32768, 8);
    add_append<insta, kv_format<int8_pages<fp16>, 128>>("i8", 32768, 8);
    add_append<insta, kv_format<int4_groups<fp16>, 128>>("i4", 32768, 8);
    add_file<insta, f16>("f16", 32768, 8);
    // An eighth of the tokens, or of the bytes.
    add_method<f16>("quest", 32768, attention::quest{.keep_pages = 1.0 / 8});
    add_method<f16>("dsa", 32768, attention::dsa{.keep_tokens = 1.0 / 8});
    add_method<f16>("top_values", 32768, attention::top_values{.keep_values = 1.0 / 8});
    add_method<f16>("hgca", 32768, attention::hgca{.window = 4096});
    for (const int tokens : {8192, 32768}) {
      add_build<attention::retro_infer, f16>("retro_infer", tokens);
      add_build<attention::squeezed, f16>("squeezed", tokens);
    }
    return run_benchmarks(argc, argv, [] { add_machine_to_header(); });
  });
}
