#pragma once
// Runs the registered benchmarks, and fails if a result cannot be written.

#include <ostream>
#include <span>
#include <string>
#include <string_view>

#include <benchmark/benchmark.h>

#include "instinfer/core/errors.hpp"

namespace instinfer::bench {

// The JSON of --benchmark_out; the library itself does not look whether the file takes it.
class checked_json : public benchmark::JSONReporter {
 public:
  void Finalize() override {
    JSONReporter::Finalize();
    written_ = static_cast<bool>(GetOutputStream().flush());
  }
  bool written() const { return written_; }

 private:
  bool written_ = true;
};

// Calls between() when the arguments are read and nothing has run. Returns the exit status; throws
// bad_file for a file that cannot be written.
template <class Between>
int run_benchmarks(int argc, char** argv, Between&& between) {
  std::string_view file;
  bool json = true;
  for (const std::string_view argument : std::span(argv, static_cast<std::size_t>(argc))) {
    constexpr std::string_view out = "--benchmark_out=";
    constexpr std::string_view format = "--benchmark_out_format=";
    if (argument.starts_with(out)) {
      file = argument.substr(out.size());
    } else if (argument.starts_with(format)) {
      json = argument.substr(format.size()) == "json";
    }
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) {
    return 1;
  }
  between();
  if (file.empty() || !json) {
    benchmark::RunSpecifiedBenchmarks();
    return 0;
  }
  checked_json reporter;
  benchmark::RunSpecifiedBenchmarks(nullptr, &reporter);
  require<bad_file>(reporter.written(), [&] { return std::string(file) + ": cannot be written"; });
  return 0;
}

}  // namespace instinfer::bench
