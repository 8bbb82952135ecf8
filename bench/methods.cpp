// Selection methods side by side: error, mass, bytes and drive time at budgets 1/2 to 1/32.

#include <cstdio>
#include <cstring>
#include <map>

#include <nlohmann/json.hpp>

#include "methods/comparison.hpp"
#include "support/program.hpp"

namespace {

using namespace instinfer;
using methods::decode_case;
using methods::measurement;

void compare(const decode_case& c, std::vector<measurement>& results) {
  std::fprintf(stderr, "%s ...\n", c.name.c_str());
  switch (c.head_dim) {
    case 64:
      return methods::compare_head_64(c, results);
    case 128:
      return methods::compare_head_128(c, results);
    default:
      throw bad_argument(
          "bench methods: traces with head size 64 or 128 can be compared, this one has " +
          std::to_string(c.head_dim));
  }
}

void print(const std::vector<measurement>& results) {
  std::string workload;
  for (const measurement& m : results) {
    if (m.workload != workload) {
      workload = m.workload;
      std::printf("\n%s: means over layers and queries, bytes of one layer's attention call\n",
                  workload.c_str());
      std::printf("%-14s %6s %9s %6s %6s %9s %9s %9s %8s %6s %9s %9s %8s\n", "method", "budget",
                  "error", "mass", "worst", "flash KB", "filter KB", "fast KB", "summ KB", "pages",
                  "resid KB", "drive us", "cpu us");
    }
    std::printf(
        "%-14s   1/%-3.0f %9.2e %6.3f %6.3f %9.1f %9.1f %9.1f %8.1f %6.0f %9.1f %9.1f %8.1f\n",
        m.method.c_str(), 1 / m.budget, m.rel_error, m.mass_mean, m.mass_min, m.bytes_flash / 1e3,
        m.bytes_filtered / 1e3, m.bytes_fast / 1e3, m.bytes_summary / 1e3, m.pages,
        m.bytes_resident / 1e3, m.drive_us, m.cpu_us);
  }
  std::printf(
      "\nerror: |out - exact| / |exact|. mass: exact attention weight of the tokens whose V was attended, mean and worst query head.\n"
      "flash: whole pages read. filter: their wanted entries. fast: K and V kept in fast memory. summ: summary rows read. resid: fast\n"
      "memory needed. drive: modelled, 8 x 1.4 GB/s, an engine that keeps up. cpu: measured, one thread, median.\n");
}

void write_json(const std::vector<measurement>& results, const std::string& file) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const measurement& m : results) {
    rows.push_back({{"method", m.method},
                    {"workload", m.workload},
                    {"budget", m.budget},
                    {"rel_error", m.rel_error},
                    {"mass_mean", m.mass_mean},
                    {"mass_min", m.mass_min},
                    {"bytes_flash", m.bytes_flash},
                    {"bytes_filtered", m.bytes_filtered},
                    {"bytes_fast", m.bytes_fast},
                    {"bytes_summary", m.bytes_summary},
                    {"bytes_link", m.bytes_link},
                    {"pages", m.pages},
                    {"bytes_resident", m.bytes_resident},
                    {"drive_us", m.drive_us},
                    {"cpu_us", m.cpu_us}});
  }
  program::write_file(
      file, nlohmann::ordered_json{{"kind", "methods"}, {"measurements", rows}}.dump(1) + '\n');
}

constexpr const char* usage =
    "usage: ./dev bench methods [--sparf] [--trace FILE] [--json FILE] [--figures DIR]";

}  // namespace

int main(int argc, char** argv) {
  return program::run("bench methods", [&] {
    std::map<std::string, std::string> options{{"--trace", INSTINFER_DEFAULT_TRACE}};
    const bool sparf = argc > 1 && std::strcmp(argv[1], "--sparf") == 0;
    for (int i = sparf ? 2 : 1; i < argc; i += 2) {
      if (std::strcmp(argv[i], "--help") == 0) {
        std::puts(usage);
        return 0;
      }
      if (i + 1 == argc ||
          (std::strcmp(argv[i], "--trace") != 0 && std::strcmp(argv[i], "--json") != 0)) {
        std::fprintf(stderr, "%s\n", usage);
        return 2;
      }
      options[argv[i]] = argv[i + 1];
    }
    if (options.contains("--json")) {
      program::check_writable(options["--json"]);
    }
    std::vector<measurement> results;
    const decode_case traced = methods::of_trace(trace::read(options["--trace"]), 64);
    if (sparf) {
      require(traced.head_dim == 64, [&] {
        return "bench methods: --sparf takes traces with head size 64, this one has " +
               std::to_string(traced.head_dim);
      });
      methods::compare_sparf(traced, results);
    } else {
      compare(traced, results);
      const workload::sample topics = workload::topics{.queries = 64}();
      compare(methods::of_sample("topics", topics), results);
      compare(methods::of_sample("shuffled", workload::shuffled(topics)), results);
    }
    print(results);
    if (options.contains("--json")) {
      write_json(results, options["--json"]);
    }
    return 0;
  });
}
