// The claims of the InstInfer paper and what the models here give for them.

#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "paper/calibration.hpp"
#include "paper/document.hpp"
#include "paper/json.hpp"
#include "support/program.hpp"

namespace {

using namespace instinfer;

constexpr const char* usage =
    "usage: ./dev bench paper [--json FILE] [--figures DIR] [--doc FILE] [--calibrate]";

struct arguments {
  bool help = false;
  bool calibrate = false;
  std::string json, doc;
};

arguments parse(int argc, char** argv) {
  arguments parsed;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--help") {
      parsed.help = true;
      continue;
    }
    if (name == "--calibrate") {
      parsed.calibrate = true;
      continue;
    }
    std::string* const value = name == "--json"  ? &parsed.json
                               : name == "--doc" ? &parsed.doc
                                                 : nullptr;
    if (value == nullptr || i + 1 == argc) {
      throw std::runtime_error(std::string(usage) + ", got " + name);
    }
    *value = argv[++i];
  }
  return parsed;
}

void print(const std::vector<paper::claim>& claims) {
  std::printf("%-10s%-62s %11s %11s  %s\n", "", "", "paper", "ours", "error");
  for (const paper::claim& c : claims) {
    // The section sign takes two bytes, one column.
    const int width = c.figure.starts_with("\xC2") ? 11 : 10;
    std::printf("%-*s%-62s %11s %11s  %-9s %-10s %s\n", width, c.figure.c_str(), c.what.c_str(),
                paper::detail::number(c.paper).c_str(), paper::detail::number(c.ours).c_str(),
                paper::detail::error_of(c).c_str(), paper::detail::name_of(c.how), c.unit.c_str());
  }
  std::printf("predicted numbers: median error %.1f %%\n", 100 * paper::median_error(claims));
}

void run(const arguments& wanted) {
  if (wanted.help) {
    std::puts(usage);
    return;
  }
  for (const std::string& file : {wanted.json, wanted.doc}) {
    if (!file.empty()) {
      program::check_writable(file);
    }
  }
  if (wanted.calibrate) {
    const system::host_software found = paper::calibrated();
    std::printf(
        "cached_request_ns     %.0f\npageable_bytes_per_s  %.4g\nswapped_page_ns       %.0f\nrecomputed_tokens     %.0f\n",
        found.cached_request_ns, found.pageable_bytes_per_s, found.swapped_page_ns,
        found.recomputed_tokens);
    return;
  }
  const paper::all_runs runs = paper::run_everything();
  const std::vector<paper::claim> claims = paper::all_claims(runs);
  print(claims);
  if (!wanted.json.empty()) {
    program::write_file(wanted.json, paper::json(runs, claims).dump(1) + '\n');
  }
  if (!wanted.doc.empty()) {
    program::write_file(
        wanted.doc, paper::document(page::text_of(INSTINFER_REPRODUCTION_TEMPLATE), runs, claims));
  }
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("bench paper", [&] {
    run(parse(argc, argv));
    return 0;
  });
}
