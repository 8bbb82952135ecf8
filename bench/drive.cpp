// A real drive: calibrates the flash model on it, then sets the store against fio and the model.
//
// --path DIR [--path DIR ...]: folders of the page files, one for each drive; the default is the
// current one. 600 MiB are needed. --spec FILE: writes the calibrated drive, which plan_capacity
// and sweep take as --drive FILE. Page files are read past the system's cache where it allows it;
// the device and the effective mode are in the header.
//
// Every case has rounds of half a second of fio and half a second of its own, since other users of
// a shared device change its rate. Counters:
//   bytes_per_second   of whole pages, mean over all rounds
//   of_fio             that over fio's rate in the same round, median of the rounds. Scattered
//                      reads: fio's random reads of a page's size. In order: its reads of 512 KiB.
//                      Writes: its writes of 512 KiB. The depth is the better of two.
//   from_device        bytes that came from the device, as the system counts them, over those that
//                      were read
//   of_device          the time of the same requests, without an engine and as many at a time as is
//                      best, in the same round, over the attend's; median of the rounds
//   model_error        the calibrated model's time over the measured one, minus 1
//   requests_error     the calibrated model's time over that of the same requests, minus 1
//   bytes_error        the bytes that the model reads over those that were read, minus 1
//   vs_dense           the time of the fastest dense case with as many threads, over its own
//   bytes_vs_dense     the bytes that it reads over those of that case
//
// Names: scattered/p<page bytes> and in_order/p<page bytes>: every page once, in random order, and
// in the order of writing; one reader. append/p<page bytes>: a prompt, its pages written.
// <method>/p<page bytes>/threads:<n>: decode attention of 8 KV heads of 128 dims in fp16 over
// 32,768 tokens, sparse methods at 1/8. fused: K and V of a token in one page.

#include <chrono>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "drive/attends.hpp"
#include "drive/calibration.hpp"
#include "drive/fio.hpp"
#include "run_benchmarks.hpp"
#include "support/program.hpp"

namespace {

using namespace instinfer;
using bench::fio_load;

constexpr int rounds = 7;
constexpr double round_s = 0.5;
constexpr std::size_t request_bytes = std::size_t{512} << 10;  // the store's largest

std::vector<std::string> folders;

const bench::calibration& device() {
  static const bench::calibration calibrated = bench::calibrate(folders);
  return calibrated;
}

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

double median_of(std::vector<double> x) {
  std::ranges::nth_element(x, x.begin() + std::ssize(x) / 2);
  return x[x.size() / 2];
}

struct passes {
  double seconds = 0;   // of a pass, median of the rounds
  double bytes = 0;     // of a pass
  double requests = 0;  // seconds of its requests alone, median of the rounds
};

// Of what is not compared with its requests.
double no_requests() { return 0; }

// Runs `work` and fio in turn, and sets the counters. bytes(): a count that passes increase.
passes against_fio(benchmark::State& state, bool direct, fio_load load, std::size_t bytes,
                   auto&& count_bytes, auto&& work, auto&& requests_alone) {
  const bool deep = load == fio_load::random_reads;
  const int depth = bench::best_fio_depth(load, bytes, direct, deep ? 32 : 8, deep ? 256 : 32);
  std::vector<double> ratios;
  std::vector<double> times;
  std::vector<double> alone;
  std::vector<double> shares;  // of the requests alone
  double all_bytes = 0;
  double all_seconds = 0;
  double count = 0;
  double from_device = 0;
  for (auto _ : state) {
    const double fio = bench::fio_rate(load, bytes, direct, depth);
    const std::uint64_t before = count_bytes();
    const std::uint64_t device_before = device_bytes();
    double seconds = 0;
    int n = 0;
    for (; seconds < round_s; ++n) {
      seconds += seconds_of(work);
    }
    const auto moved = static_cast<double>(count_bytes() - before);
    from_device += static_cast<double>(device_bytes() - device_before);
    ratios.push_back(moved / seconds / fio);
    times.push_back(seconds / n);
    all_bytes += moved;
    all_seconds += seconds;
    count += n;
    state.SetIterationTime(seconds / n);
    double requests = 0;
    int passes = 0;
    do {
      requests += requests_alone();
      ++passes;
    } while (requests > 0 && requests < round_s / 2);
    alone.push_back(requests / passes);
    shares.push_back(alone.back() / times.back());
  }
  state.counters["bytes_per_second"] = all_bytes / all_seconds;
  state.counters["of_fio"] = median_of(ratios);
  if (load != fio_load::writes) {
    state.counters["from_device"] = from_device / all_bytes;
  }
  if (alone.front() > 0) {
    state.counters["of_device"] = median_of(shares);
  }
  return {median_of(times), all_bytes / count, median_of(alone)};
}

void add_case(const std::string& name, auto&& run) {
  benchmark::RegisterBenchmark(name.c_str(), run)
      ->Unit(benchmark::kMillisecond)
      ->UseManualTime()
      ->Iterations(rounds);
}

void add_reads(std::uint32_t page_bytes, bool random) {
  add_case((random ? "scattered/p" : "in_order/p") + std::to_string(page_bytes),
           [=](benchmark::State& state) {
             constexpr std::uint64_t file_bytes = std::uint64_t{256} << 20;
             const auto channels = static_cast<std::uint32_t>(folders.size());
             store::drive_files store({.folders = folders, .readers = 1}, channels,
                                      file_bytes / channels / page_bytes, page_bytes);
             std::vector<page_id> pages = bench::written_pages(store);
             if (random) {
               std::ranges::shuffle(pages, std::mt19937(1));
             }
             access_plan plan;
             for (const page_id page : pages) {
               page_read read;
               read.page = page;
               plan.add(read);
             }
             against_fio(
                 state, store.mode().direct, random ? fio_load::random_reads : fio_load::reads,
                 random ? page_bytes : request_bytes, [&] { return store.bytes_read(); },
                 [&] {
                   layout::planned_reads* ahead = store.read_ahead(plan, {0, plan.reads().size()});
                   for (const page_read& read : plan.reads()) {
                     benchmark::DoNotOptimize(*ahead->at(read));
                   }
                   ahead->close();
                 },
                 no_requests);
           });
}

template <class Policy, class Layout>
void add_append() {
  add_case("append/p" + std::to_string(Layout::page_bytes), [](benchmark::State& state) {
    bench::append_case<Policy, Layout> appends(folders);
    against_fio(
        state, appends.pages().mode().direct, fio_load::writes, request_bytes,
        [&] { return appends.pages().pages_written() * Layout::page_bytes; },
        [&] { appends.append(); }, no_requests);
  });
}

// Of the fastest dense attention, by threads.
std::map<std::size_t, passes> dense_passes;

template <class Policy, class Layout>
void add_attend(const char* method, std::size_t workers, const Policy& policy = {}) {
  constexpr std::uint32_t page_bytes = Layout::page_bytes;
  add_case(std::string(method) + "/p" + std::to_string(page_bytes) +
               "/threads:" + std::to_string(workers),
           [=](benchmark::State& state) {
             constexpr bool dense = std::is_same_v<Policy, attention::dense>;
             bench::attend_case<Policy, Layout> attends(folders, policy, workers);
             attends.attend();
             const auto requests = attends.requests();
             bench::device_load alone(bench::open_page_files(), 0, attends.pages().mode());
             const auto alone_s = [&](std::size_t depth) {
               double sum = 0;
               for (const auto& operation : requests) {
                 sum += alone.seconds_of(operation, depth);
               }
               return sum;
             };
             const std::size_t depth = alone_s(32) < alone_s(256) ? 32 : 256;
             const passes pass = against_fio(
                 state, attends.pages().mode().direct,
                 dense ? fio_load::reads : fio_load::random_reads,
                 dense ? request_bytes : page_bytes, [&] { return attends.pages().bytes_read(); },
                 [&] { attends.attend(); }, [&] { return alone_s(depth); });
             const bench::modelled_reads model = bench::model_reads(requests, device());
             state.counters["model_error"] = model.seconds / pass.seconds - 1;
             state.counters["requests_error"] = model.seconds / pass.requests - 1;
             state.counters["bytes_error"] = model.bytes / pass.bytes - 1;
             const auto known = dense_passes.find(workers);
             if (dense) {
               if (known == dense_passes.end() || pass.seconds < known->second.seconds) {
                 dense_passes[workers] = pass;
               }
             } else if (known != dense_passes.end()) {
               state.counters["vs_dense"] = known->second.seconds / pass.seconds;
               state.counters["bytes_vs_dense"] = pass.bytes / known->second.bytes;
             }
           });
}

template <std::uint32_t PageBytes>
void add_sparse(std::size_t workers) {
  using namespace attention;
  add_attend<sparf, layout::dual<PageBytes>>("sparf", workers, sparf::at_compression(8));
  add_attend<quest, layout::fused<PageBytes>>("quest_fused", workers);
  retro_infer clusters{.retrieved = 1.0 / 8, .estimated = 1.0 / 8, .segment_tokens = 2048};
  clusters.cached = 0.0;  // no page stays in memory from one attend to the next
  add_attend<retro_infer, layout::fused<PageBytes>>("clusters_fused", workers, clusters);
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("bench_drive", [&] {
    std::vector<char*> others{argv[0]};
    std::string spec;
    for (int i = 1; i < argc; ++i) {
      const std::string_view option = argv[i];
      if (option == "--path" || option == "--spec") {
        require(i + 1 < argc, [&] {
          return std::string(option) + (option == "--path" ? " needs a folder" : " needs a file");
        });
        option == "--path" ? folders.emplace_back(argv[i + 1]) : spec = argv[i + 1];
        ++i;
      } else {
        others.push_back(argv[i]);
      }
    }
    if (folders.empty()) {
      folders.emplace_back(".");
    }
    if (!spec.empty()) {
      program::check_writable(spec);
    }
    for (const std::uint32_t page_bytes : {4096u, 16384u, 65536u}) {
      add_reads(page_bytes, true);
      add_reads(page_bytes, false);
    }
    add_append<attention::dense, layout::token_indexed<4096>>();
    add_append<attention::dense, layout::token_indexed<65536>>();
    const std::size_t cores = std::max(std::thread::hardware_concurrency(), 1u);
    for (const std::size_t workers : {std::size_t{1}, 2 * cores}) {
      add_attend<attention::dense, layout::token_indexed<4096>>("dense", workers);
      add_attend<attention::dense, layout::token_indexed<65536>>("dense", workers);
      add_sparse<4096>(workers);
      add_sparse<16384>(workers);
      add_sparse<65536>(workers);
    }
    const bool lists = std::ranges::any_of(others, [](std::string_view option) {
      return option.starts_with("--benchmark_list_tests");
    });
    return bench::run_benchmarks(static_cast<int>(others.size()), others.data(), [&] {
      if (lists) {
        return;
      }
      bench::print(device());
      program::flush_output();
      if (!spec.empty()) {
        bench::write_spec(device(), spec);
      }
      benchmark::AddCustomContext("effective_mode", device().mode);
      benchmark::AddCustomContext("device", device().device);
      benchmark::AddCustomContext("model_page_size_4096", to_string(device().spec(4096).geometry));
    });
  });
}
