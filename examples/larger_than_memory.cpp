// Attends to a KV cache on a drive that is larger than the memory this program may have: the system
// refuses it more (RLIMIT_DATA, `ulimit -d`), and the results are checked against the definition.
//
//   build/release/examples/larger_than_memory --path DIR --cache-mib 1024 --memory-mib 192

#include <sys/resource.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <instinfer/cpu.hpp>
#include <instinfer/drive.hpp>

#include "instinfer/layout/fused.hpp"
#include "instinfer/methods/quest.hpp"
#include "support/number_in.hpp"
#include "support/program.hpp"

namespace {

using namespace instinfer;

constexpr int dim = 128;
constexpr int heads = 8;
constexpr std::uint64_t mib = std::uint64_t{1} << 20;
constexpr std::uint64_t token_bytes = heads * 2 * dim * sizeof(fp16);  // 4 KiB
constexpr std::uint64_t chunk_tokens = 2048;

// Pages of 64 KiB have 128 tokens, K and V of a token in one page.
constexpr std::uint32_t page_bytes = 64 << 10;
constexpr flash::drive_spec with_large_pages() {
  flash::drive_spec drive = flash::pcie4_ssd;
  drive.geometry.page_bytes = static_cast<std::int32_t>(page_bytes);
  return drive;
}
template <class Policy>
using engine_of =
    engine<design<Policy, layout::fused<page_bytes>, with_large_pages(), transfer::host_bounce>,
           kv_format<fp16, dim>, cpu::path, store::drive_files>;

// Number `at` of a sequence in [-1, 1) that can be computed from any place on.
float value_at(std::uint64_t at) {
  std::uint64_t x = at * 0x9E37'79B9'7F4A'7C15u;
  x = (x ^ (x >> 31)) * 0xBF58'476D'1CE4'E5B9u;
  return static_cast<float>(x >> 40) * 0x1p-23f - 1.0f;
}

// Rows of K or V [tokens, heads, dim] of chunk `chunk`.
void fill(std::vector<fp16>& rows, std::uint64_t chunk, bool values) {
  const std::uint64_t first = (chunk * 2 + (values ? 1 : 0)) * rows.size();
  for (std::uint64_t i = 0; i < rows.size(); ++i) {
    rows[i] = from_float<fp16>(value_at(first + i));
  }
}

// Attention of head 0 by its definition, in fp64, over the values as they were appended.
std::vector<double> exact_head(std::uint64_t chunks, const std::vector<float>& q) {
  std::vector<fp16> k(chunk_tokens * heads * dim);
  std::vector<fp16> v(k.size());
  std::vector<double> out(dim, 0.0);
  double sum = 0;
  for (std::uint64_t c = 0; c < chunks; ++c) {
    fill(k, c, false);
    fill(v, c, true);
    for (std::uint64_t t = 0; t < chunk_tokens; ++t) {
      double logit = 0;
      for (std::size_t i = 0; i < dim; ++i) {
        logit += static_cast<double>(q[i]) * static_cast<double>(to_float(k[t * heads * dim + i]));
      }
      const double weight = std::exp(logit / std::sqrt(double{dim}));  // |logit| < 12
      sum += weight;
      for (std::size_t i = 0; i < dim; ++i) {
        out[i] += weight * static_cast<double>(to_float(v[t * heads * dim + i]));
      }
    }
  }
  for (double& x : out) {
    x /= sum;
  }
  return out;
}

struct memory_limit {
  explicit memory_limit(std::uint64_t bytes) {
    const rlimit to{bytes, bytes};
    require(::setrlimit(RLIMIT_DATA, &to) == 0, [&] {
      return "larger_than_memory: the system does not take a limit of " + std::to_string(bytes) +
             " bytes";
    });
  }
};

double peak_mib() {
  rusage use = {};
  ::getrusage(RUSAGE_SELF, &use);
  return static_cast<double>(use.ru_maxrss) / 1024;
}

template <class Policy>
void report(const char* name, const Policy& policy, const std::string& path, std::uint64_t chunks,
            const std::vector<float>& q, const std::vector<double>& exact) {
  const std::uint64_t cache_bytes = chunks * chunk_tokens * token_bytes;
  // One drive, so one channel.
  store::drive_files pages({.folders = {path}}, 1, cache_bytes / page_bytes + 1, page_bytes);
  const auto tokens = static_cast<std::uint32_t>(chunks * chunk_tokens);
  engine_of<Policy> e({.layers = 1, .q_heads = heads, .kv_heads = heads},
                      {.bytes = cache_bytes, .context_tokens = tokens}, std::move(pages), policy);
  const sequence seq = e.open();
  {
    std::vector<fp16> k(chunk_tokens * heads * dim);
    std::vector<fp16> v(k.size());
    for (std::uint64_t c = 0; c < chunks; ++c) {
      fill(k, c, false);
      fill(v, c, true);
      e.append(seq, 0, k, v);
    }
  }
  std::vector<float> out(q.size());
  const auto begin = std::chrono::steady_clock::now();
  e.attend(seq, 0, q, out);
  const double s = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const auto read = static_cast<double>(e.pages().bytes_read());
  fmt::print("{:<6}{:>7.0f} MiB read in {:>5.2f} s, {:.2f} GB/s", name,
             read / static_cast<double>(mib), s, read / s / 1e9);
  if constexpr (std::is_same_v<Policy, attention::dense>) {
    double square = 0;
    double norm = 0;
    for (std::size_t i = 0; i < dim; ++i) {
      square += std::pow(static_cast<double>(out[i]) - exact[i], 2);
      norm += exact[i] * exact[i];
    }
    const double off = std::sqrt(square / norm);
    require<error>(off < 1e-3, [&] {
      return "larger_than_memory: dense attention is off by " + std::to_string(off);
    });
    fmt::print("; off by {:.0e} of the definition's result", off);
  }
  fmt::print("\n");
}

int run(int argc, char** argv) {
  std::string path = ".";
  double cache_mib = 1024;
  double memory_mib = 192;
  CLI::App app(
      "Dense attention and Quest over a cache on a drive that is larger than the memory allowed.");
  app.add_option("--path", path, "Folder of the page files, on the drive")->capture_default_str();
  app.add_option("--cache-mib", cache_mib, "Size of the cache; 4 KiB a token")
      ->capture_default_str()
      ->check(program::number_in(8, 1e6));
  app.add_option("--memory-mib", memory_mib, "What the system gives this program at most")
      ->capture_default_str()
      ->check(program::number_in(1, 1e6));
  CLI11_PARSE(app, argc, argv);
  const auto chunks = static_cast<std::uint64_t>(cache_mib) * mib / (chunk_tokens * token_bytes);
  const memory_limit limit(static_cast<std::uint64_t>(memory_mib) * mib);
  const double before = peak_mib();
  fmt::print("cache {:.0f} MiB of {} tokens, memory limit {:.0f} MiB, {:.0f} MiB used at start\n",
             static_cast<double>(chunks * chunk_tokens * token_bytes) / static_cast<double>(mib),
             chunks * chunk_tokens, memory_mib, before);
  std::vector<float> q(heads * dim);
  for (std::size_t i = 0; i < q.size(); ++i) {
    q[i] = 4 * value_at(~std::uint64_t{i});
  }
  const std::vector<double> exact = exact_head(chunks, q);
  fmt::print("drive {}\n",
             to_string(store::drive_files({.folders = {path}}, 1, 1, page_bytes).mode()));
  report("dense", attention::dense{}, path, chunks, q, exact);
  report("quest", attention::basic_quest<128>{}, path, chunks, q, exact);
  const double pages = cache_mib * static_cast<double>(mib) / page_bytes;
  fmt::print(
      "peak {:.0f} MiB: {:.0f} at start, 64 of buffers, {:.1f} of tables for {:.0f} pages, the rest "
      "of open pages, bounds and values to append\n",
      peak_mib(), before, pages * 24 / static_cast<double>(mib), pages);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("larger_than_memory", [&] { return run(argc, argv); });
}
