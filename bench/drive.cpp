// A real drive: pages of store::drive_files against fio on the same files, and attends from them.
//
// --path DIR [--path DIR ...]: folders of the page files, one for each drive; the default is the
// current one. 256 MiB are needed. Page files are read past the system's cache where it allows it;
// the effective mode is in the header. Counters, from the best pass:
//   bytes_per_second   of whole pages
//   of_fio             that over fio's rate, measured just before and after on the same files, the
//                      higher one: scattered reads of a page's size, at the better of depths 32 and
//                      256; in order, of 512 KiB, at the better of depths 8 and 32
//   from_device        bytes that came from the device, as the system counts them, over those that
//                      were read
//   vs_dense           SparF: the time of dense attention from pages of the same size over its own
//   bytes_vs_dense     SparF: the bytes that it reads over those of dense attention
//
// Names: scattered/p<page bytes> and in_order/p<page bytes>: every page once, in random order, and
// in the order of writing; one reader. write/p<page bytes>: every page once, against no fio.
// dense/p<page bytes>/threads:<n>, sparf/...: decode attention of 8 KV heads of 128 dims in fp16
// over 32,768 tokens, SparF at 1/8. of_fio is against reads in order for dense attention, and
// against scattered reads for SparF, of whose pages some are neighbours.

#include <chrono>
#include <cstring>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <instinfer/cpu.hpp>
#include <instinfer/drive.hpp>

#include "drive/fio.hpp"
#include "run_benchmarks.hpp"
#include "support/program.hpp"
#include "worker_pool.hpp"

namespace {

using namespace instinfer;

constexpr std::uint32_t channels = 8;
constexpr std::uint64_t file_bytes = std::uint64_t{256} << 20;
constexpr std::size_t request_bytes = std::size_t{512} << 10;  // the store's largest

std::vector<std::string> folders;

double seconds_of(auto&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::uint64_t device_bytes() {
  std::ifstream counts("/proc/self/io");
  std::string name;
  std::uint64_t value = 0;
  while (counts >> name >> value) {
    if (name == "read_bytes:") {
      return value;
    }
  }
  return 0;
}

// Runs `work` as Google Benchmark asks for, between two runs of fio, and sets the counters of
// reads. Returns the best pass in seconds.
double against_fio(benchmark::State& state, const store::drive_files& store, bool random,
                   std::size_t bytes, auto&& work) {
  const bool direct = store.mode().direct;
  const auto fio = [&] {
    return random ? bench::fio_rate(true, bytes, direct, {32, 256})
                  : bench::fio_rate(false, bytes, direct, {8, 32});
  };
  const double before = fio();
  const std::uint64_t logical_before = store.bytes_read();
  const std::uint64_t device_before = device_bytes();
  double best = 1e9;
  std::uint64_t passes = 0;
  for (auto _ : state) {
    best = std::min(best, seconds_of(work));
    ++passes;
  }
  const auto logical = static_cast<double>(store.bytes_read() - logical_before);
  const double rate = logical / static_cast<double>(passes) / best;
  state.counters["bytes_per_second"] = rate;
  state.counters["from_device"] = static_cast<double>(device_bytes() - device_before) / logical;
  state.counters["of_fio"] = rate / std::max(before, fio());
  return best;
}

struct filled_files {
  explicit filled_files(std::uint32_t page_bytes)
      : store{{.folders = folders, .readers = 1},
              channels,
              file_bytes / channels / page_bytes,
              page_bytes} {
    write();
  }
  void write() {
    for (const page_id page : pages) {
      store.release(page);
    }
    pages.clear();
    for (std::uint32_t i = 0; store.free_pages() > 0; ++i) {
      pages.push_back(store.allocate(i));
      const std::span<std::byte> to = store.write(pages.back());
      std::memset(to.data(), static_cast<int>(i), to.size());
    }
    store.flush();
  }

  store::drive_files store;
  std::vector<page_id> pages;
};

void add_reads(std::uint32_t page_bytes, bool random) {
  const std::string name = (random ? "scattered/p" : "in_order/p") + std::to_string(page_bytes);
  benchmark::RegisterBenchmark(
      name.c_str(),
      [=](benchmark::State& state) {
        filled_files files(page_bytes);
        if (random) {
          std::ranges::shuffle(files.pages, std::mt19937(1));
        }
        access_plan plan;
        for (const page_id page : files.pages) {
          page_read read;
          read.page = page;
          plan.add(read);
        }
        against_fio(state, files.store, random, random ? page_bytes : request_bytes, [&] {
          layout::planned_reads* ahead = files.store.read_ahead(plan, {0, plan.reads().size()});
          for (const page_read& read : plan.reads()) {
            benchmark::DoNotOptimize(*ahead->at(read));
          }
          ahead->close();
        });
      })
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime()
      ->MinTime(2.0);
}

void add_writes(std::uint32_t page_bytes) {
  benchmark::RegisterBenchmark(("write/p" + std::to_string(page_bytes)).c_str(),
                               [=](benchmark::State& state) {
                                 filled_files files(page_bytes);
                                 double best = 1e9;
                                 for (auto _ : state) {
                                   best = std::min(best, seconds_of([&] { files.write(); }));
                                 }
                                 state.counters["bytes_per_second"] = file_bytes / best;
                               })
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime();
}

constexpr flash::drive_spec drive_of(std::uint32_t page_bytes) {
  flash::drive_spec spec = flash::instcsd;
  spec.geometry.page_bytes = static_cast<std::int32_t>(page_bytes);
  return spec;
}

using format = kv_format<fp16, 128>;
constexpr std::size_t tokens = 32768;
constexpr model_shape shape{.layers = 1, .q_heads = 8, .kv_heads = 8};

template <class Policy, class Layout>
using engine_of =
    cpu::engine<design<Policy, Layout, drive_of(Layout::page_bytes), transfer::host_bounce>, format,
                store::drive_files>;

template <class Engine>
std::unique_ptr<Engine> filled_engine(const typename Engine::policy& policy, sequence& seq) {
  // As much as the tokens take: fio would read what was never written at no cost.
  constexpr std::uint32_t page_bytes = Engine::design_type::layout_policy::page_bytes;
  constexpr bool two_copies_of_k =
      Engine::design_type::layout_policy::template tiles<format>(tokens).k_by_dim.stored();
  constexpr std::size_t bytes = tokens * 8 * 128 * sizeof(fp16) * (two_copies_of_k ? 3 : 2);
  auto engine = std::make_unique<Engine>(
      shape, store::capacity{.context_tokens = tokens},
      store::drive_files({.folders = folders}, channels, bytes / channels / page_bytes, page_bytes),
      policy);
  seq = engine->open();
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<fp16> k(tokens * 8 * 128);
  std::vector<fp16> v(k.size());
  for (std::size_t i = 0; i < k.size(); ++i) {
    k[i] = from_float<fp16>(normal(random));
    v[i] = from_float<fp16>(normal(random));
  }
  engine->append(seq, 0, k, v);
  require(engine->pages().free_pages() == 0,
          [] { return std::string("bench_drive: some pages were never written"); });
  return engine;
}

struct dense_pass {
  double seconds = 0;
  double bytes = 0;
};

template <class Engine>
void add_attend(const char* name, std::size_t workers, const typename Engine::policy& policy,
                std::shared_ptr<dense_pass> dense) {
  constexpr std::uint32_t page_bytes = Engine::design_type::layout_policy::page_bytes;
  benchmark::RegisterBenchmark(
      (std::string(name) + "/p" + std::to_string(page_bytes) +
       "/threads:" + std::to_string(workers))
          .c_str(),
      [=](benchmark::State& state) {
        sequence seq;
        const std::unique_ptr<Engine> engine = filled_engine<Engine>(policy, seq);
        std::mt19937 random(2);
        std::normal_distribution<float> normal;
        std::vector<float> q(8 * 128);
        for (float& x : q) {
          x = normal(random);
        }
        std::vector<float> out(q.size());
        typename Engine::scratch work;
        const bench::worker_pool pool(workers);
        engine->attend(seq, 0, q, out, work, pool);
        const std::uint64_t before = engine->pages().bytes_read();
        engine->attend(seq, 0, q, out, work, pool);
        const auto bytes = static_cast<double>(engine->pages().bytes_read() - before);
        constexpr bool dense_policy = std::is_same_v<typename Engine::policy, attention::dense>;
        const double best = against_fio(state, engine->pages(), !dense_policy,
                                        dense_policy ? request_bytes : page_bytes,
                                        [&] { engine->attend(seq, 0, q, out, work, pool); });
        if constexpr (dense_policy) {
          *dense = {best, bytes};
        } else if (dense->seconds > 0) {
          state.counters["vs_dense"] = dense->seconds / best;
          state.counters["bytes_vs_dense"] = bytes / dense->bytes;
        }
      })
      ->Unit(benchmark::kMillisecond)
      ->UseRealTime()
      ->MinTime(2.0);
}

template <std::uint32_t PageBytes>
void add_attends() {
  for (const std::size_t workers : {1u, 2u}) {
    const auto dense = std::make_shared<dense_pass>();
    add_attend<engine_of<attention::dense, layout::token_indexed<PageBytes>>>("dense", workers, {},
                                                                              dense);
    add_attend<engine_of<attention::sparf, layout::dual<PageBytes>>>(
        "sparf", workers, attention::sparf::at_compression(8), dense);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("bench_drive", [&] {
    std::vector<char*> others{argv[0]};
    for (int i = 1; i < argc; ++i) {
      if (std::string_view(argv[i]) == "--path") {
        require(i + 1 < argc, [] { return std::string("--path needs a folder"); });
        folders.emplace_back(argv[++i]);
      } else {
        others.push_back(argv[i]);
      }
    }
    if (folders.empty()) {
      folders.emplace_back(".");
    }
    for (const std::uint32_t page_bytes : {4096u, 16384u, 65536u}) {
      add_reads(page_bytes, true);
      add_reads(page_bytes, false);
      add_writes(page_bytes);
    }
    add_attends<4096>();
    add_attends<65536>();
    return bench::run_benchmarks(static_cast<int>(others.size()), others.data(), [] {
      const store::drive_files files({.folders = folders}, channels, 2, 4096);
      benchmark::AddCustomContext("effective_mode", to_string(files.mode()));
    });
  });
}
