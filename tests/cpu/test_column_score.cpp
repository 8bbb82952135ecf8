// The column kernel against double: every length of a run, all head counts, every element type, any
// alignment. Nothing outside of its range may be touched.

#include <doctest/doctest.h>

#include "instinfer/cpu/score/column_score-inl.hpp"
#include "kernel_checks.hpp"

using namespace instinfer;
using namespace instinfer::test;

namespace {

constexpr std::size_t tile_tokens = 300;
constexpr std::size_t all_dims = 40;

// products[h, t] is the sum over the dims of q_h[dim] * columns[dim, t] for the tokens of the run,
// and untouched elsewhere.
void verify(std::size_t heads, const std::vector<double>& columns,
            std::span<const std::uint32_t> dims, index_run run, std::span<const float> q,
            std::span<const float> products) {
  for (std::size_t h = 0; h < heads; ++h) {
    for (std::size_t t = 0; t < tile_tokens; ++t) {
      const float mine = products[h * tile_tokens + t];
      if (t < run.first || t >= run.last) {
        REQUIRE(mine == untouched);
        continue;
      }
      double exact = 0;
      double magnitude = 0;
      for (const std::uint32_t dim : dims) {
        const double product = as_double(q[h * all_dims + dim]) * columns[dim * tile_tokens + t];
        exact += product;
        magnitude += std::abs(product);
      }
      REQUIRE(std::abs(as_double(mine) - exact) <= sum_bound(dims.size(), magnitude));
    }
  }
}

template <std::uint32_t Heads, Element E>
void check_columns(unsigned seed) {
  CAPTURE(seed);
  CAPTURE(Heads);
  std::mt19937 random(seed);
  const rows_of<E> columns(all_dims, tile_tokens, random);  // one row a dim
  const std::vector<double> values = columns.values();
  guarded q(Heads * all_dims, 3);
  fill(q.span(), random, -3.0f, 3.0f);
  for (const std::size_t wanted : {0u, 1u, 7u, 40u}) {
    std::vector<cpu::column<E>> list;
    std::vector<std::uint32_t> dims;
    for (std::size_t c = 0; c < wanted; ++c) {
      dims.push_back(static_cast<std::uint32_t>(c * all_dims / wanted));
      list.push_back({columns.data()[dims.back()], dims.back()});
    }
    for (std::uint32_t length = 0; length <= 140; ++length) {
      const index_run run{length % 11, length % 11 + length};
      CAPTURE(length);
      guarded products(Heads * tile_tokens, length % 16);
      cpu::score_columns<Heads, E>(list, run, q.data(), all_dims, products.data(), tile_tokens,
                                   length % 2 == 0 ? std::span<const cpu::column<E>>{} : list);
      CHECK(products.guards_hold());
      verify(Heads, values, dims, run, q.span(), products.span());
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("column kernel: products of chosen dims for runs of tokens", E, fp32, fp16,
                   bf16) {
  check_columns<1, E>(201);
  check_columns<std::min(2u, cpu::heads_at_once), E>(202);
  check_columns<std::min(3u, cpu::heads_at_once), E>(203);
  check_columns<std::min(4u, cpu::heads_at_once), E>(204);
  check_columns<cpu::heads_at_once, E>(205);
}
