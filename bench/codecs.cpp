// The error of dense attention on the demo's trace with each codec, rows by token and K by dim: a
// table in Markdown, for docs/storage.md.

#include <cmath>
#include <cstdio>

#include "instinfer/codec/dim_scales.hpp"
#include "instinfer/cpu.hpp"
#include "instinfer/layout/dim_indexed.hpp"
#include "methods/decode_case.hpp"
#include "support/program.hpp"

namespace {

using namespace instinfer;
using methods::decode_case;

// |out - exact| / |exact| of one layer's call, mean over layers and measured queries.
template <class Storage, class Layout>
double error_of(const decode_case& c, const methods::exact_answers& exact) {
  using mine = design<attention::dense, Layout, flash::instcsd, transfer::in_storage>;
  cpu::engine<mine, kv_format<Storage, 64>> engine(
      {.layers = 1,
       .q_heads = static_cast<int>(c.q_heads),
       .kv_heads = static_cast<int>(c.kv_heads)},
      {.context_tokens = static_cast<std::uint32_t>(c.tokens)});
  std::vector<float> out(c.q_heads * c.head_dim);
  double sum = 0;
  for (std::size_t l = 0; l < c.layers.size(); ++l) {
    const sequence seq = engine.open();
    std::size_t have = 0;
    for (std::size_t i = 0; i < c.measured; ++i) {
      const std::size_t seen = c.seen_by(c.first_measured() + i);
      const std::size_t row = c.kv_heads * c.head_dim;
      engine.append(seq, 0, std::span(c.layers[l].k).subspan(have * row, (seen - have) * row),
                    std::span(c.layers[l].v).subspan(have * row, (seen - have) * row));
      have = seen;
      engine.attend(seq, 0, c.query(l, c.first_measured() + i), out);
      double difference = 0;
      double norm = 0;
      for (std::size_t h = 0; h < c.q_heads; ++h) {
        for (std::size_t d = 0; d < c.head_dim; ++d) {
          const double e = exact[l][i][h].output[static_cast<Eigen::Index>(d)];
          difference += std::pow(static_cast<double>(out[h * c.head_dim + d]) - e, 2);
          norm += e * e;
        }
      }
      sum += std::sqrt(difference / norm);
    }
    engine.reclaim(seq);
  }
  return sum / static_cast<double>(c.measured * c.layers.size());
}

template <class Storage>
void print_row(const decode_case& c, const methods::exact_answers& exact) {
  std::printf("| `%s` | %.1e | %.1e |\n", codec_of<Storage>::name,
              error_of<Storage, layout::token_indexed<>>(c, exact),
              error_of<Storage, layout::dim_indexed<4096, 2>>(c, exact));
}

}  // namespace

int main(int argc, char** argv) {
  return program::run("bench codecs", [&] {
    if (argc > 1 && std::string_view(argv[1]) == "--help") {
      std::puts("bench_codecs [TRACE.safetensors]: the error of each codec on the trace");
      return 0;
    }
    const decode_case c =
        methods::of_trace(trace::read(argc > 1 ? argv[1] : INSTINFER_DEFAULT_TRACE), 64);
    require(c.head_dim == 64, [&] {
      return "bench codecs: the trace must have head size 64, has " + std::to_string(c.head_dim);
    });
    const methods::exact_answers exact = methods::solve(c);
    std::printf("| storage | K by token | K by dim |\n|---|---|---|\n");
    print_row<fp16>(c, exact);
    print_row<int8_pages<fp16>>(c, exact);
    print_row<int8_dims<fp16>>(c, exact);
    print_row<fp8_pages<fp16>>(c, exact);
    print_row<int4_groups<fp16>>(c, exact);
    print_row<int4_dims<fp16>>(c, exact);
    return 0;
  });
}
