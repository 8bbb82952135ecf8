// Which CPU kernels suit this processor: measures variants and writes a header with the best.
//
// usage: ./dev bench tune [HEADER]
// Every variant changes one knob of cpu::tuning for each kind of attend, and runs by turns with the
// default: fp16, fp32 and int8 with head size 128, 32 K tokens, one thread, best of each. What
// gains less than 2 % stays as it is. HEADER (build/this_machine.hpp by default) has the tunings,
// for programs to include.

#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "support/program.hpp"
#include "tune/formats.hpp"
#include "tune/measure.hpp"

namespace instinfer::bench {

template <>
std::vector<measured> measure<tuned_f16>();
template <>
std::vector<measured> measure<tuned_f32>();
template <>
std::vector<measured> measure<tuned_i8>();

namespace {

std::string level(cpu::cache_level to) {
  constexpr const char* names[] = {"none", "l1", "l2", "l3"};
  return std::string("instinfer::cpu::cache_level::") + names[static_cast<int>(to)];
}
std::string distance(const cpu::prefetch_distance& d) {
  return "{.bytes = " + std::to_string(d.bytes) + ", .rows = " + std::to_string(d.rows) + "}";
}
std::string prefetch(const cpu::row_prefetch& p) {
  return "{.k = " + distance(p.k) + ", .v = " + distance(p.v) + ", .to = " + level(p.to) + "}";
}

// A tuning as a definition in C++.
std::string definition(const std::string& name, const tuning& t) {
  return "inline constexpr instinfer::cpu::tuning " + name +
         "{\n    .one_head = " + prefetch(t.one_head) + ",\n    .group = " + prefetch(t.group) +
         ",\n    .scattered = " + level(t.scattered) +
         ",\n    .block_rows = " + std::to_string(t.block_rows) +
         ",\n    .heads = " + std::to_string(t.heads) +
         ",\n    .by_turns = " + (t.by_turns ? "true" : "false") + "};\n";
}

// A candidate in few words: what it changes.
std::string words(std::size_t of_kind, const tuning& t) {
  const auto ahead = [](const cpu::row_prefetch& p) {
    constexpr const char* names[] = {"no prefetch", "to L1", "to L2", "to L3"};
    const std::string to = names[static_cast<int>(p.to)];
    return p.k.bytes == 0 ? to : std::to_string(p.k.bytes) + " bytes ahead " + to;
  };
  if (t.block_rows != tuning{}.block_rows) {
    return "blocks of " + std::to_string(t.block_rows) + " rows";
  }
  if (t.heads != tuning{}.heads) {
    return "tiles of " + std::to_string(t.heads) + " heads";
  }
  if (!t.by_turns) {
    return "K before V";
  }
  return ahead(of_kind == 0   ? t.one_head
               : of_kind == 1 ? t.group
                              : cpu::row_prefetch{.to = t.scattered});
}

// The gain of a candidate: the geometric mean over the shapes of its kind.
double gain(const std::vector<measured>& shapes, std::size_t of_kind, std::size_t candidate) {
  double product = 1;
  int count = 0;
  for (const measured& m : shapes) {
    if (of_kind == kind_of_all || m.of_kind == of_kind) {
      product *= m.gains[kernel_of(of_kind, candidate)];
      ++count;
    }
  }
  return std::pow(product, 1.0 / count);
}

// Prints all gains of a format, and returns the tuning that has the best candidate of every kind.
tuning best_of(const char* name, const std::vector<measured>& shapes) {
  tuning best;
  for (std::size_t k = 0; k < std::size(kinds); ++k) {
    std::size_t chosen = 0;
    double most = 1.02;
    for (std::size_t c = 0; c < kinds[k].candidates.size(); ++c) {
      if (kernel_of(k, c) == kernels) {
        continue;
      }
      const double mean = gain(shapes, k, c);
      std::printf("| %s | %s | %s | %.2f |", name, kinds[k].name,
                  words(k, kinds[k].candidates[c]).c_str(), mean);
      for (const measured& m : shapes) {
        if (k == kind_of_all || m.of_kind == k) {
          std::printf(" %s: %.2f", m.name.c_str(), m.gains[kernel_of(k, c)]);
        }
      }
      std::printf(" |\n");
      if (mean > most) {
        most = mean;
        chosen = c + 1;
      }
    }
    if (chosen > 0) {
      kinds[k].copy(kinds[k].candidates[chosen - 1], best);
    }
    std::printf("| %s | %s | **%s** | %.2f | |\n", name, kinds[k].name,
                chosen > 0 ? words(k, kinds[k].candidates[chosen - 1]).c_str() : "the default",
                chosen > 0 ? most : 1.0);
    std::fflush(stdout);
  }
  return best;
}

}  // namespace
}  // namespace instinfer::bench

int main(int argc, char** argv) {
  return instinfer::program::run("bench tune", [&] {
    using namespace instinfer;
    using namespace instinfer::bench;
    if (argc > 1 && std::string_view(argv[1]) == "--help") {
      std::puts("bench_tune [HEADER]: which kernels of the CPU path suit this processor");
      return 0;
    }
    const std::string file = argc > 1 ? argv[1] : "this_machine.hpp";
    program::check_writable(file);
    const std::string cpu_name = value_in("/proc/cpuinfo", "model name");
    std::printf("%s, %s. Speed over the default's, geometric mean over the shapes.\n\n",
                cpu_name.c_str(), cpu::target_name());
    std::puts("| format | kind | variant | gain | shapes |\n|---|---|---|---|---|");
    std::string text = "#pragma once\n// Kernels of the CPU path for " + cpu_name + " (" +
                       cpu::target_name() +
                       "), by ./dev bench tune. For example\n//   "
                       "instinfer::cpu::engine<design, kv_format<fp16, 128>, tuned::f16>\n\n"
                       "#include <instinfer/cpu/tuning-inl.hpp>\n\nnamespace tuned {\n\n";
    const auto add = [&](const char* name, const std::vector<measured>& shapes) {
      text += definition(name, best_of(name, shapes)) + "\n";
    };
    add("f16", measure<tuned_f16>());
    add("f32", measure<tuned_f32>());
    add("i8", measure<tuned_i8>());
    program::write_file(file, text + "}  // namespace tuned\n");
    std::printf("\nWritten to %s: #include it, and give its values to cpu::engine.\n",
                file.c_str());
    return 0;
  });
}
