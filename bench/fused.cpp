// What each selection method reads with separate and with fused rows, on drives with pages of
// 4 KiB, 1 KiB and 512 bytes: a table in Markdown, for docs/methods.md.

#include <cstdio>

#include "instinfer/layout/fused.hpp"
#include "methods/comparison.hpp"
#include "support/program.hpp"

namespace {

using namespace instinfer;
using methods::decode_case;
using methods::measurement;

constexpr double budgets[] = {1.0 / 8, 1.0 / 16};

template <std::uint32_t PageBytes>
void measure(const decode_case& c, std::vector<std::vector<measurement>>& results) {
  results.emplace_back();
  methods::comparison<64, layout::token_indexed<PageBytes>, layout::dual<PageBytes>>(c,
                                                                                     results.back())
      .run(budgets);
  results.emplace_back();
  methods::comparison<64, layout::fused<PageBytes>, layout::fused_dual<PageBytes>>(c,
                                                                                   results.back())
      .run(budgets);
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("bench fused", [&] {
    if (argc > 1 && std::string_view(argv[1]) == "--help") {
      std::puts(
          "bench_fused [TRACE.safetensors]: what each method reads with separate and with fused rows");
      return 0;
    }
    const std::string trace = argc > 1 ? argv[1] : INSTINFER_DEFAULT_TRACE;
    const decode_case c = methods::of_trace(trace::read(trace), 64);
    std::vector<std::vector<measurement>> results;  // separate and fused, by page size
    measure<4096>(c, results);
    measure<1024>(c, results);
    measure<512>(c, results);
    std::printf(
        "| method | budget | 4 KiB | 1 KiB | 512 B | us, 4 KiB | 512 B |\n|---|---|---|---|---|---|---|\n");
    const double heads = static_cast<double>(c.kv_heads);
    for (std::size_t i = 0; i < results[0].size(); ++i) {
      std::printf("| `%s` | 1/%.0f |", results[0][i].method.c_str(), 1 / results[0][i].budget);
      for (std::size_t p = 0; p < 6; p += 2) {
        const measurement& apart = results[p][i];
        const measurement& together = results[p + 1][i];
        std::printf(" %.0f → %.0f KB, %.0f → %.0f |", apart.bytes_flash / heads / 1e3,
                    together.bytes_flash / heads / 1e3, apart.pages / heads,
                    together.pages / heads);
      }
      std::printf(" %.0f → %.0f | %.0f → %.0f |\n", results[0][i].drive_us, results[1][i].drive_us,
                  results[4][i].drive_us, results[5][i].drive_us);
    }
    return 0;
  });
}
