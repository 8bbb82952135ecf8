// The flash timeline: pages simulated per second, with every statistic on; batches and mixed
// streams.
//
// Names: pattern/page/wW/pP/nN: W chips a channel, P planes a die, batches of N reads on 8 channels
// of one die a chip; then what differs from the default rules. Each case first replays a batch of
// 2,000 pages on the event-driven drive of the tests and compares every finish time. An iteration
// is one batch: finish time of each page, busy time of each bus and die, makespan, and latency
// percentiles. Iterations go round 16 batches, so that no branch predictor knows one by heart.
// decode: flash::engine on the paper's drive, one layer of OPT-13B's shape (40 heads) at 1,536
// tokens, attention in storage: plans, placement, and the replay of channels, filters and kernels;
// its decode step is checked in tests/flash. mixed: three random reads to one program of lower
// priority, one request every 2 us, programs suspended for reads.

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include <instinfer/flash/engine.hpp>
#include <instinfer/ssd/channel/mixed_timeline.hpp>
#include <instinfer/ssd/channel/timeline.hpp>
#include <instinfer/ssd/report/latencies.hpp>
#include <instinfer/ssd/spec/placement.hpp>
#include <instinfer/ssd/spec/presets.hpp>

#include "run_benchmarks.hpp"
#include "support/event_driven_drive.hpp"
#include "support/mixed_drive.hpp"
#include "support/program.hpp"

namespace {

using namespace instinfer;

struct drive_case {
  flash::geometry shape;
  flash::timing times = flash::vnand_v6_timing;
  flash::drive_rules rules = {};
};

drive_case plain(std::int32_t planes) {
  return {.shape = {.channels = 8, .chips = 4, .planes = planes, .blocks = 2048, .pages = 768}};
}

drive_case cached(std::int32_t planes) {
  drive_case c = plain(planes);
  c.rules.cache_read = true;
  return c;
}

drive_case tlc(std::int32_t planes) {
  drive_case c = plain(planes);
  c.times = flash::tlc_by_type_timing;
  return c;
}

drive_case retried(std::int32_t planes) {
  drive_case c = plain(planes);
  c.rules.retry = flash::worst_read_retry;
  return c;
}

// Reads of `count` pages: of all the drive, or from a random page on in CWDP order.
std::vector<flash::location> draw(const flash::geometry& shape, bool sequential, std::int64_t count,
                                  std::mt19937& random) {
  const flash::placement place{shape};
  std::uniform_int_distribution<std::int64_t> any{0, shape.pages_total() - count};
  const std::int64_t first = any(random);
  std::vector<flash::location> pages;
  for (std::int64_t n = 0; n < count; ++n) {
    pages.push_back(place.striped(sequential ? first + n : any(random)));
  }
  return pages;
}

// Empty, or what differs from the event-driven drive.
template <class Arbitration>
std::string difference(const drive_case& c, bool sequential) {
  std::mt19937 random{7};
  const std::vector<flash::location> pages = draw(c.shape, sequential, 2000, random);
  std::vector<std::int64_t> finish(pages.size());
  flash::timeline<Arbitration> drive{c.shape, c.times, c.rules};
  const std::int64_t makespan = drive.read(pages, finish).makespan_ticks;
  oracle::event_driven_drive slow{c.shape,
                                  c.times,
                                  {.data_first = std::is_same_v<Arbitration, flash::data_out_first>,
                                   .pair = c.rules.pair,
                                   .arrive = c.rules.arrive,
                                   .cache_read = c.rules.cache_read,
                                   .retry = c.rules.retry}};
  const oracle::outcome expected = slow.run(pages);
  if (makespan != expected.makespan) {
    return "makespan " + std::to_string(makespan) + " ticks, not " +
           std::to_string(expected.makespan);
  }
  return finish == expected.finish ? "" : "a page finishes at another tick";
}

template <class Arbitration>
void replay(benchmark::State& state, const drive_case& c, bool sequential) {
  if (const std::string wrong = difference<Arbitration>(c, sequential); !wrong.empty()) {
    state.SkipWithError(wrong.c_str());
    return;
  }
  constexpr std::int64_t count = 10'000;
  std::mt19937 random{1};
  std::vector<std::vector<flash::location>> batches;
  for (int i = 0; i < 16; ++i) {
    batches.push_back(draw(c.shape, sequential, count, random));
  }
  std::vector<std::int64_t> finish(static_cast<std::size_t>(count));
  flash::timeline<Arbitration> drive{c.shape, c.times, c.rules};
  std::size_t next = 0;
  for (auto _ : state) {
    const flash::batch_times times = drive.read(batches[next++ % batches.size()], finish);
    const flash::latencies spread = flash::latencies_of(finish);
    benchmark::DoNotOptimize(times.makespan_ticks + spread.p99_ticks);
  }
  state.counters["pages_per_second"] =
      benchmark::Counter(static_cast<double>(count), benchmark::Counter::kIsIterationInvariantRate);
}

template <class Arbitration = flash::data_out_first>
void add(const drive_case& c, const std::string& more) {
  for (const bool sequential : {false, true}) {
    const std::string name = std::string(sequential ? "sequential" : "burst") + "/4KiB/w" +
                             std::to_string(c.shape.chips) + "/p" + std::to_string(c.shape.planes) +
                             "/n10000" + more;
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
      replay<Arbitration>(state, c, sequential);
    })->Unit(benchmark::kMicrosecond);
  }
}

std::vector<flash::io_request> draw_mixed(const flash::geometry& shape, std::int64_t count,
                                          std::mt19937& random) {
  const std::vector<flash::location> pages = draw(shape, false, count, random);
  std::vector<flash::io_request> requests;
  for (std::int64_t n = 0; n < count; ++n) {
    const bool reads = n % 4 != 0;
    requests.push_back(
        {.what = reads ? flash::array_operation::read : flash::array_operation::program,
         .where = pages[static_cast<std::size_t>(n)],
         .arrival_ps = n * 2 * flash::ps_per_us,
         .priority = reads ? 0 : 1});
  }
  return requests;
}

void replay_mixed(benchmark::State& state, std::int32_t planes) {
  const drive_case c = plain(planes);
  const flash::drive_rules rules{.suspend = {.of_programs = true}};
  std::mt19937 random{7};
  flash::mixed_timeline<> drive{c.shape, c.times, rules};
  const std::vector<flash::io_request> few = draw_mixed(c.shape, 1000, random);
  std::vector<std::int64_t> finish(few.size());
  drive.run(few, finish);
  if (finish != oracle::mixed_drive(c.shape, c.times, rules, true).run(few).finish) {
    state.SkipWithError("a request finishes at another tick");
    return;
  }
  constexpr std::int64_t count = 10'000;
  std::vector<std::vector<flash::io_request>> streams;
  for (int i = 0; i < 16; ++i) {
    streams.push_back(draw_mixed(c.shape, count, random));
  }
  finish.resize(static_cast<std::size_t>(count));
  std::size_t next = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(drive.run(streams[next++ % streams.size()], finish).makespan_ticks);
  }
  state.counters["pages_per_second"] =
      benchmark::Counter(static_cast<double>(count), benchmark::Counter::kIsIterationInvariantRate);
}

// A decode step of one layer for a batch of sequences.
template <class Design>
void decode(benchmark::State& state, int batch) {
  using engine = flash::engine<Design>;
  constexpr std::uint64_t tokens = 1536;
  engine drive({.layers = 1, .q_heads = 40, .kv_heads = 40},
               {.bytes = std::uint64_t{8} << 30, .context_tokens = 2048});
  const std::vector<float> q(40 * 128, 1.0f);
  std::vector<float> out(q.size());
  std::vector<typename engine::request> requests;
  for (int i = 0; i < batch; ++i) {
    requests.push_back({drive.open(), q, out});
    drive.append_count(requests.back().seq, 0, tokens);
  }
  double pages = 0;
  for (auto _ : state) {
    const flash::receipt done = drive.attend_batch(0, requests);
    pages = static_cast<double>(done.traffic.pages_read);
    benchmark::DoNotOptimize(done.attention_ns);
  }
  state.counters["pages_per_second"] =
      benchmark::Counter(pages, benchmark::Counter::kIsIterationInvariantRate);
}

template <class Design>
void add_decode(const char* name) {
  for (const int batch : {1, 4, 64}) {
    benchmark::RegisterBenchmark(
        (std::string("decode/") + name + "/4KiB/bs" + std::to_string(batch)).c_str(),
        [=](benchmark::State& state) { decode<Design>(state, batch); })
        ->Unit(benchmark::kMillisecond);
  }
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("bench_flash", [&] {
    for (const std::int32_t planes : {1, 2}) {
      add(plain(planes), "");
      add<flash::command_first>(plain(planes), "/command_first");
      add<flash::command_first>(cached(planes), "/command_first/cache_read");
      add(tlc(planes), "/tlc");
      add(retried(planes), "/retry");
      benchmark::RegisterBenchmark(("mixed/4KiB/w4/p" + std::to_string(planes) + "/n10000").c_str(),
                                   [=](benchmark::State& state) { replay_mixed(state, planes); })
          ->Unit(benchmark::kMicrosecond);
    }
    add_decode<insta>("dense");
    add_decode<insta_sparf>("sparf");
    return bench::run_benchmarks(argc, argv,
                                 [] { benchmark::AddCustomContext("compiler", __VERSION__); });
  });
}
