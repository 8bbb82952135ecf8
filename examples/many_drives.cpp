// Decodes the demo's trace over many drives, each a rank of MPI: who held what, who waited for
// whom, and the speed-up.
//
//   mpirun -n 5 build/release/examples/many_drives                   a host and four drives
//   mpirun -n 3 build/release/examples/many_drives --split heads     the trace has two KV heads

#include <chrono>
#include <cmath>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <instinfer/cpu.hpp>
#include <instinfer/mpi.hpp>

#include "support/program.hpp"
#include "support/replay.hpp"

namespace {

using namespace instinfer;

constexpr int head_dim = 64;  // of the committed trace
using format = kv_format<fp16, head_dim>;
// Computes on the CPU, and times what it reads on the paper's drive.
using drive = flash::engine<insta, format, cpu::path>;

double seconds_of(auto&& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The decode of `sequences` sequences side by side: sequence s has the trace's text up to a place
// of its own, and then takes `steps` tokens more, one after the other.
struct workload {
  const trace::kv_trace& trace;
  std::size_t sequences;
  std::size_t steps;

  std::size_t queries() const { return sequences * steps; }
  std::size_t prompt(std::size_t s) const { return trace.tokens() - queries() + s * steps; }
  model_shape shape() const {
    return {.layers = static_cast<int>(trace.layers.size()),
            .q_heads = static_cast<int>(trace.q_heads()),
            .kv_heads = static_cast<int>(trace.kv_heads())};
  }
  // Room for all of it on one drive.
  store::capacity capacity() const {
    const std::size_t token = trace.layers.size() * trace.kv_heads() * 2 * head_dim * sizeof(fp16);
    return {.bytes = 2 * sequences * trace.tokens() * token + (8 << 20),
            .context_tokens = static_cast<std::uint32_t>(trace.tokens())};
  }
};

struct decoded {
  std::vector<float> out;  // [layers, steps, sequences, q_heads, head_dim]
  double attends_s = 0;    // measured
  double modelled_ns = 0;
};

// attend(layer, requests) returns the modelled time of a batch.
template <class Engine, class Attend>
decoded decode(const workload& work, Engine& engine, Attend&& attend) {
  const trace::kv_trace& t = work.trace;
  const std::size_t kv_row = t.kv_heads() * head_dim;
  const std::size_t row = t.q_heads() * head_dim;
  decoded all;
  all.out.resize(t.layers.size() * work.queries() * row);
  std::vector<attend_request> batch(work.sequences);
  for (attend_request& r : batch) {
    r.seq = engine.open();
  }
  auto out = std::span(all.out);
  for (std::size_t l = 0; l < t.layers.size(); ++l) {
    const auto layer = static_cast<int>(l);
    const std::vector<fp16> k = trace::as_stored(t.layers[l].k);
    const std::vector<fp16> v = trace::as_stored(t.layers[l].v);
    const auto append = [&](std::size_t s, std::size_t first, std::size_t count) {
      engine.append(batch[s].seq, layer, std::span(k).subspan(first * kv_row, count * kv_row),
                    std::span(v).subspan(first * kv_row, count * kv_row));
    };
    for (std::size_t s = 0; s < work.sequences; ++s) {
      append(s, 0, work.prompt(s));
    }
    for (std::size_t step = 0; step < work.steps; ++step) {
      for (std::size_t s = 0; s < work.sequences; ++s) {
        const std::size_t query = t.queries() - work.queries() + s * work.steps + step;
        append(s, work.prompt(s) + step, 1);
        batch[s].q = t.layers[l].q.row(query);
        batch[s].out = out.first(row);
        out = out.subspan(row);
      }
      all.attends_s += seconds_of([&] { all.modelled_ns += attend(layer, batch); });
    }
  }
  return all;
}

template <class Cluster, class Split>
void report(const workload& work, const Cluster& many, const Split& split, double elapsed_s) {
  fmt::print(
      "rank  KV heads  sequences  tokens  share  commands  MB sent  MB back   busy s  waited s\n");
  const auto& drives = many.reports();
  const auto n = static_cast<int>(drives.size());
  for (int d = 0; d < n; ++d) {
    const cluster::drive_report& r = drives[static_cast<std::size_t>(d)];
    std::size_t sequences = 0;
    for (std::size_t s = 0; s < work.sequences; ++s) {
      sequences += split.holds(static_cast<std::uint32_t>(s), d, n) ? 1 : 0;
    }
    const std::uint64_t tokens = split.tokens_of(work.trace.tokens(), d, n);
    const double share = static_cast<double>(r.heads.size()) /
                         static_cast<double>(work.trace.kv_heads()) *
                         static_cast<double>(sequences) / static_cast<double>(work.sequences) *
                         static_cast<double>(tokens) / static_cast<double>(work.trace.tokens());
    fmt::print(
        "{:<4}  {:>8}  {:>9}  {:>6}  {:>3.0f} %  {:>8}  {:>7.1f}  {:>7.1f}  {:>7.2f}  {:>8.2f}\n",
        r.rank, fmt::format("[{}, {})", r.heads.first, r.heads.last), sequences, tokens,
        100 * share, r.commands, static_cast<double>(r.bytes_sent) * 1e-6,
        static_cast<double>(r.bytes_received) * 1e-6, r.busy_s, elapsed_s - r.busy_s);
  }
}

template <class Split>
int run_over(const workload& work, const Split& split) {
  cluster::engine<drive, Split> many(MPI_COMM_WORLD, work.shape(), work.capacity(), {}, {}, split);
  if (!many.is_host()) {
    many.serve();
    return 0;
  }
  decoded over_many;
  const double elapsed_s = seconds_of([&] {
    over_many = decode(work, many, [&](int layer, std::span<const attend_request> batch) {
      many.post(layer, batch);
      // Here a host computes what does not need the result, as the next batch's projections.
      return many.wait().modelled_ns;
    });
  });
  fmt::print(
      "split      {}: {} drives, {} sequences of about {} tokens, {} steps in each of {} layers\n\n",
      split.name(), many.reports().size(), work.sequences, work.trace.tokens(), work.steps,
      work.trace.layers.size());
  report(work, many, split, elapsed_s);
  fmt::print("\nThe host waited {:.2f} s for attends, of {:.2f} s.\n", many.waited_s(), elapsed_s);
  many.close();

  drive one(work.shape(), work.capacity());
  const decoded over_one = decode(work, one, [&](int layer, std::span<const attend_request> batch) {
    return one.attend_batch(layer, batch).total_ns();
  });
  fmt::print(
      "measured   attends take {:.2f} s over all drives, {:.2f} s on one: {:.2f} times as fast\n",
      over_many.attends_s, over_one.attends_s, over_one.attends_s / over_many.attends_s);
  fmt::print("modelled   on the paper's drives {:.1f} ms and {:.1f} ms: {:.2f} times as fast\n",
             over_many.modelled_ns * 1e-6, over_one.modelled_ns * 1e-6,
             over_one.modelled_ns / over_many.modelled_ns);
  double largest = 0;
  double difference = 0;
  for (std::size_t i = 0; i < over_one.out.size(); ++i) {
    const double x = over_one.out[i];
    largest = std::max(largest, std::abs(x));
    difference = std::max(difference, std::abs(static_cast<double>(over_many.out[i]) - x));
  }
  const double error = difference / largest;
  fmt::print("outputs    {}\n", error > 0 ? fmt::format("within {:.0e} of one drive's", error)
                                          : std::string("have the bits of one drive's"));
  return error <= (Split::splits_tokens ? 1e-5 : 0) ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const cluster::session mpi(&argc, &argv);
  // Inside of the session: what all ranks refuse ends the program on all of them.
  return program::run("many_drives", [&] {
    CLI::App app{
        "Decodes a KV trace over drives that are ranks of MPI, and over one: mpirun -n 5 many_drives.\n"
        "Rank 0 is the host, every other rank a drive."};
    std::string trace_file = INSTINFER_DEFAULT_TRACE;
    std::string split = "sequences";
    std::size_t sequences = 8;
    std::size_t steps = 8;
    app.add_option("--trace", trace_file, "a KV trace with head size 64")->capture_default_str();
    app.add_option("--split", split, "what a drive has: heads, sequences or tokens")
        ->check(CLI::IsMember({"heads", "sequences", "tokens"}))
        ->capture_default_str();
    app.add_option("--sequences", sequences)->check(CLI::Range(1, 64))->capture_default_str();
    app.add_option("--steps", steps, "tokens that each sequence decodes")
        ->check(CLI::Range(1, 64))
        ->capture_default_str();
    CLI11_PARSE(app, argc, argv);
    // Every rank reads it, so that all of them know the shape, or fail alike.
    const trace::kv_trace trace = trace::read(trace_file);
    const workload work{trace, sequences, steps};
    require(trace.head_dim() == head_dim && work.queries() <= trace.queries(), [&] {
      return fmt::format("the trace has head size {} and {} queries; {} and {} or more are wanted",
                         trace.head_dim(), trace.queries(), head_dim, work.queries());
    });
    return split == "heads"       ? run_over(work, cluster::by_heads{})
           : split == "sequences" ? run_over(work, cluster::by_sequences{})
                                  : run_over(work, cluster::by_tokens{});
  });
}
