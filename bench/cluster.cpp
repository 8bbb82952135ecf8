// Engines over MPI against one engine with as many threads, and what the layer itself costs.
//
// ./dev bench cluster runs it on two ranks; mpirun -n N bench_cluster on N. Each rank is a drive
// with one thread, the host, too. Decode attention of 32 query heads over 8 KV heads of 128 dims in
// fp16, over 32,768 tokens; by_sequences: over one such sequence a rank. Counters, from the best
// call of each side:
//   of_one_engine    speed over one engine with as many threads; the other ranks then sleep
//   layer_overhead   share of an attend in which the slowest drive is not at work: messages,
//                    packing, merging; the median
//   bits_equal       1 if the output has the bits of the engine's
//   error            largest difference over the largest output
//   message_kb       sent and received, of each other rank in an attend
//   layer_us         an attend without the work of the slowest drive; the median
//   modelled         the model's speed-up by as many of the paper's drives over one, of which the
//                    GPU takes no part (system/drive_split.hpp)
//   plain_us         a plain MPI program that sends and receives the same bytes; the median
//
// Names: by_heads/r<ranks>, by_sequences/r<ranks>, by_tokens/r<ranks>.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <thread>
#include <vector>

#include <instinfer/cpu.hpp>
#include <instinfer/mpi.hpp>
#include <instinfer/system.hpp>

#include "processor.hpp"
#include "run_benchmarks.hpp"
#include "support/program.hpp"
#include "worker_pool.hpp"

namespace {

using namespace instinfer;

using format = kv_format<fp16, 128>;
using engine = cpu::engine<insta, format>;
constexpr model_shape shape{.layers = 1, .q_heads = 32, .kv_heads = 8};
constexpr std::size_t tokens = 32'768;
constexpr int rounds = 3;
constexpr int calls = 12;

double seconds_of(auto&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int size_of_world() {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

// Which case comes next, from rank 0 to the others; they sleep until then, where a blocking call
// of MPI would spin.
constexpr int no_more = -1;
constexpr int echo = 3;
void announce(int which) {
  for (int rank = 1; rank < size_of_world(); ++rank) {
    MPI_Send(&which, 1, MPI_INT, rank, 0, MPI_COMM_WORLD);
  }
}
int next_case() {
  int there = 0;
  while (MPI_Iprobe(0, 0, MPI_COMM_WORLD, &there, MPI_STATUS_IGNORE), there == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  int which = no_more;
  MPI_Recv(&which, 1, MPI_INT, 0, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  return which;
}

// The plain program: `bytes` to each rank, and from it.
void send_and_receive(std::vector<char>& buffer, std::size_t bytes) {
  const auto n = static_cast<int>(bytes);
  for (int rank = 1; rank < size_of_world(); ++rank) {
    MPI_Send(buffer.data(), n, MPI_CHAR, rank, 1, MPI_COMM_WORLD);
  }
  for (int rank = 1; rank < size_of_world(); ++rank) {
    MPI_Recv(buffer.data(), n, MPI_CHAR, rank, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  }
}
void serve_plain() {
  std::vector<char> buffer(1 << 20);
  for (int bytes = 1; bytes > 0;) {
    MPI_Status status;
    MPI_Recv(buffer.data(), 1 << 20, MPI_CHAR, 0, 1, MPI_COMM_WORLD, &status);
    MPI_Get_count(&status, MPI_CHAR, &bytes);
    MPI_Send(buffer.data(), bytes, MPI_CHAR, 0, 1, MPI_COMM_WORLD);
  }
}
double median(std::vector<double>& x) {
  std::ranges::nth_element(x, x.begin() + std::ssize(x) / 2);
  return x[x.size() / 2];
}
double plain_seconds(std::size_t bytes) {
  announce(echo);
  std::vector<char> buffer(bytes);
  std::vector<double> times;
  for (int i = 0; i < rounds * calls; ++i) {
    times.push_back(seconds_of([&] { send_and_receive(buffer, bytes); }));
  }
  send_and_receive(buffer, 0);
  return median(times);
}

store::capacity capacity(std::size_t sequences) {
  const std::size_t token = 2 * sizeof(fp16) * 8 * 128;
  return {.bytes = sequences * tokens * token + (8 << 20), .context_tokens = tokens};
}

template <class Split>
using many_drives = cluster::engine<engine, Split>;
template <class Split>
auto make_many() {
  return std::make_unique<many_drives<Split>>(
      MPI_COMM_WORLD, shape, capacity(Split::splits_tokens ? 1 : 2), attention::dense{},
      logit_rule{}, Split{}, cluster::options{.host_holds = true});
}

struct batch_data {
  explicit batch_data(std::size_t sequences)
      : k(tokens * 8 * 128), v(k.size()), q(sequences * 32 * 128) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < k.size(); ++i) {
      k[i] = from_float<fp16>(normal(random));
      v[i] = from_float<fp16>(normal(random));
    }
    for (float& x : q) {
      x = normal(random);
    }
  }
  std::vector<attend_request> requests(auto& on, std::vector<float>& out) const {
    out.resize(q.size());
    std::vector<attend_request> batch;
    for (std::size_t at = 0; at < q.size(); at += 32 * 128) {
      const sequence seq = on.open();
      on.append(seq, 0, k, v);
      batch.push_back({.seq = seq,
                       .q = std::span(q).subspan(at, 32 * 128),
                       .out = std::span(out).subspan(at, 32 * 128)});
    }
    return batch;
  }
  std::vector<fp16> k, v;
  std::vector<float> q;
};

// For the same heads and tokens.
template <class Split>
double modelled_speed_up(std::int64_t sequences) {
  system::model_spec model = system::llama3_8b;
  model.shape = shape;
  const system::workload job{sequences, tokens, 1};
  const auto seconds = [&](int drives) {
    return system::kv_access<insta, format>(model, job,
                                            system::split_of(Split{}, drives, shape, sequences))
        .at(tokens)
        .drive_s;
  };
  return seconds(1) / seconds(size_of_world());
}

template <class Split>
void measure(benchmark::State& state, int which, std::size_t sequences) {
  const batch_data data(sequences);
  const auto ranks = static_cast<std::size_t>(size_of_world());
  double best_one = 1e9, best_many = 1e9;
  std::vector<double> overheads, layer_s;
  std::vector<float> expected, out;
  double message_bytes = 0;
  for (auto _ : state) {
    for (int round = 0; round < rounds; ++round) {
      {
        engine one(shape, capacity(sequences));
        engine::scratch scratch;
        const bench::worker_pool pool(ranks);
        const auto batch = data.requests(one, expected);
        for (int i = 0; i < calls; ++i) {
          best_one = std::min(best_one, seconds_of([&] { one.attend(batch, 0, scratch, pool); }));
        }
      }
      announce(which);
      const auto many = make_many<Split>();
      const auto batch = data.requests(*many, out);
      const auto before = many->reports().back();
      for (int i = 0; i < calls; ++i) {
        double busy_s = 0;
        const double s = seconds_of([&] { busy_s = many->attend(batch, 0).busy_s; });
        best_many = std::min(best_many, s);
        overheads.push_back(1 - busy_s / s);
        layer_s.push_back(s - busy_s);
      }
      const auto& after = many->reports().back();
      message_bytes = static_cast<double>(after.bytes_sent - before.bytes_sent +
                                          after.bytes_received - before.bytes_received) /
                      calls;
    }
    state.SetIterationTime(best_many);
  }
  double largest = 0, difference = 0;
  for (std::size_t i = 0; i < out.size(); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(expected[i])));
    difference = std::max(difference, std::abs(static_cast<double>(out[i] - expected[i])));
  }
  state.counters["of_one_engine"] = best_one / best_many;
  state.counters["layer_overhead"] = median(overheads);
  state.counters["layer_us"] = median(layer_s) * 1e6;
  // As many bytes each way: half of both together.
  state.counters["plain_us"] = plain_seconds(static_cast<std::size_t>(message_bytes / 2)) * 1e6;
  state.counters["modelled"] = modelled_speed_up<Split>(static_cast<std::int64_t>(sequences));
  state.counters["bits_equal"] = out == expected ? 1 : 0;
  state.counters["error"] = difference / largest;
  state.counters["message_kb"] = message_bytes * 1e-3;
}

template <class Split>
void add(const char* name, int which, std::size_t sequences) {
  const std::string full = std::string(name) + "/r" + std::to_string(size_of_world());
  benchmark::RegisterBenchmark(
      full.c_str(), [=](benchmark::State& state) { measure<Split>(state, which, sequences); })
      ->Iterations(1)
      ->UseManualTime()
      ->Unit(benchmark::kMillisecond);
}

}  // namespace

int main(int argc, char** argv) {
  const cluster::session mpi(&argc, &argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return program::run("bench_cluster", [&] {
    if (rank > 0) {
      for (int which = next_case(); which != no_more; which = next_case()) {
        which == echo ? serve_plain()
        : which == 0  ? make_many<cluster::by_heads>()->serve()
        : which == 1  ? make_many<cluster::by_sequences>()->serve()
                      : make_many<cluster::by_tokens>()->serve();
      }
      return 0;
    }
    const struct at_end {
      ~at_end() { announce(no_more); }
    } ends_the_others;
    add<cluster::by_heads>("by_heads", 0, 1);
    add<cluster::by_sequences>("by_sequences", 1, static_cast<std::size_t>(size_of_world()));
    add<cluster::by_tokens>("by_tokens", 2, 1);
    return bench::run_benchmarks(argc, argv, [] { bench::add_machine_to_header(); });
  });
}
