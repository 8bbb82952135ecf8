// The kernels over rows against double: all head counts and head sizes, every element type, any
// alignment. Nothing outside of a kernel's range may be touched.

#include <doctest/doctest.h>

#include <cstdint>

#include "instinfer/cpu/fold/row_kernels-inl.hpp"
#include "kernel_checks.hpp"

using namespace instinfer;
using namespace instinfer::test;

namespace {

// Rows as the kernels read them, and in double; the shape of what they are multiplied with.
struct row_case {
  std::size_t heads;
  std::size_t slots;  // lanes that the heads take
  std::size_t dims;
  std::vector<double> rows;  // [rows, dims]

  double operator()(std::size_t row, std::size_t i) const { return rows[row * dims + i]; }
};

// products[t * slots + h] = q_h . row first + t, for `count` rows.
void verify_scores(const row_case& of, std::size_t first, std::size_t count,
                   std::span<const float> q, std::span<const float> products) {
  for (std::size_t h = 0; h < of.heads; ++h) {
    for (std::size_t t = 0; t < count; ++t) {
      double exact = 0;
      double magnitude = 0;
      for (std::size_t i = 0; i < of.dims; ++i) {
        const double product = as_double(q[h * of.dims + i]) * of(first + t, i);
        exact += product;
        magnitude += std::abs(product);
      }
      REQUIRE(std::abs(as_double(products[t * of.slots + h]) - exact) <=
              sum_bound(of.dims, magnitude));
    }
  }
}

// o = before + the sum of the first `folded` rows by their weights.
void verify_sums(const row_case& of, std::size_t folded, std::span<const float> weights,
                 std::span<const float> before, std::span<const float> o) {
  for (std::size_t h = 0; h < of.heads; ++h) {
    for (std::size_t i = 0; i < of.dims; ++i) {
      double exact = as_double(before[h * of.dims + i]);
      double magnitude = std::abs(exact);
      for (std::size_t t = 0; t < folded; ++t) {
        const double product = as_double(weights[t * of.slots + h]) * of(t, i);
        exact += product;
        magnitude += std::abs(product);
      }
      REQUIRE(std::abs(as_double(o[h * of.dims + i]) - exact) <= sum_bound(folded + 1, magnitude));
    }
  }
}

// The kernels of one block of heads and one head size, each compiled once, apart from what checks
// it.
template <Element E>
struct row_kernels {
  std::uint32_t heads;
  std::uint32_t slots;
  std::uint32_t dims;
  void (*score)(const E* const* rows, const float* q, cpu::rows_ahead<E> ahead, float* products);
  void (*accumulate)(const E* const* rows, std::size_t count, const float* weights, float* o,
                     cpu::rows_ahead<E> ahead);
};

template <std::uint32_t Heads, std::uint32_t Dims, Element E>
HWY_NOINLINE void score(const E* const* rows, const float* q, cpu::rows_ahead<E> ahead,
                        float* products) {
  cpu::hn::StoreU(cpu::score_rows<Heads, Dims>(rows, q, ahead), cpu::float_tag{}, products);
}
template <std::uint32_t Heads, std::uint32_t Dims, Element E>
HWY_NOINLINE void accumulate(const E* const* rows, std::size_t count, const float* weights,
                             float* o, cpu::rows_ahead<E> ahead) {
  cpu::accumulate_rows<Heads, Dims>(rows, count, weights, o, ahead);
}

template <Element E>
void check_rows(const row_kernels<E>& kernels, unsigned seed) {
  CAPTURE(seed);
  CAPTURE(kernels.heads);
  CAPTURE(kernels.dims);
  std::mt19937 random(seed);
  const std::size_t slots = kernels.slots;
  const std::size_t values = std::size_t{kernels.heads} * kernels.dims;
  const std::size_t tile_rows = cpu::lanes / slots;
  const std::size_t count = 2 * tile_rows + 3;
  const rows_of<E> rows(count, kernels.dims, random);
  const row_case of{kernels.heads, slots, kernels.dims, rows.values()};
  guarded q(values, 1 + seed % 15);
  fill(q.span(), random, -3.0f, 3.0f);
  for (const cpu::rows_ahead<E> ahead :
       {cpu::rows_ahead<E>{}, cpu::rows_ahead<E>{rows.data(), rows.data()}}) {
    for (const std::size_t first : {std::size_t{0}, std::size_t{3}}) {
      guarded products(cpu::lanes, seed % 16);
      kernels.score(rows.data() + first, q.data(), ahead, products.data());
      CHECK(products.guards_hold());
      verify_scores(of, first, tile_rows, q.span(), products.span());
    }

    // Any number of rows, and the sums go on from what is there.
    for (const std::size_t folded : {std::size_t{0}, std::size_t{1}, count - 1, count}) {
      CAPTURE(folded);
      guarded weights(count * slots, 5);
      fill(weights.span(), random, 0.0f, 1.0f);
      guarded o(values, 7);
      fill(o.span(), random, -1.0f, 1.0f);
      const std::vector<float> before(o.span().begin(), o.span().end());
      kernels.accumulate(rows.data(), folded, weights.data(), o.data(), ahead);
      CHECK(o.guards_hold());
      verify_sums(of, folded, weights.span(), before, o.span());
    }
  }
}

template <std::uint32_t Heads, Element E, std::uint32_t... Dims>
void check_head_sizes(unsigned seed) {
  (check_rows<E>(
       {Heads, cpu::slots<Heads>, Dims, score<Heads, Dims, E>, accumulate<Heads, Dims, E>}, seed++),
   ...);
}

// Row by row, K and V by turns: the same sums in the same order as one after the other, so the same
// bits.
template <std::uint32_t KDim, std::uint32_t VDim, class Packed>
void check_interleaved(unsigned seed) {
  if constexpr (cpu::rows_interleave<KDim, VDim> && KDim % packed_elements<Packed> == 0 &&
                VDim % packed_elements<Packed> == 0) {
    CAPTURE(KDim);
    CAPTURE(VDim);
    std::mt19937 random(seed);
    const rows_of<Packed> k(32, KDim, random);
    const rows_of<Packed> v(32, VDim, random);
    guarded q(KDim, 3), weights(16, 1), o(VDim, 5), mine(16, 0), expected(16, 0);
    fill(q.span(), random, -3.0f, 3.0f);
    fill(weights.span(), random, 0.0f, 1.0f);
    fill(o.span(), random, -1.0f, 1.0f);
    std::vector<float> sums(o.span().begin(), o.span().end());
    const cpu::rows_ahead<Packed> none;
    cpu::hn::StoreU(cpu::score_rows<1, KDim>(k.data(), q.data(), none), cpu::float_tag{},
                    expected.data());
    cpu::accumulate_rows<1, VDim>(v.data(), 16, weights.data(), sums.data(), none);
    // Rows to bring to the cache: of both, of K alone, of V alone.
    cpu::rows_ahead<Packed> k_ahead, v_ahead;
    if (seed % 3 != 0) {
      k_ahead = {k.data(), k.data() + 16};
    }
    if (seed % 3 != 1) {
      v_ahead = {v.data(), v.data() + 16};
    }
    cpu::hn::StoreU(cpu::score_and_accumulate<KDim, VDim>(
                        k.data(), q.data(), v.data(), weights.data(), o.data(), k_ahead, v_ahead),
                    cpu::float_tag{}, mine.data());
    CHECK(o.guards_hold());
    CHECK(mine.guards_hold());
    CHECK(std::ranges::equal(mine.span(), expected.span()));
    CHECK(std::ranges::equal(o.span(), sums));
  }
}

constexpr std::uint32_t most = cpu::heads_at_once;

// Adjacent pages of 16 tokens and 16 dims.
struct adjacent_pages {
  std::vector<fp16> k, v;
  layout::tile_view<fp16> operator()(const page_read& read) const {
    const std::vector<fp16>& rows = read.kind == stream::v_by_token ? v : k;
    return {rows.data() + std::size_t{read.token_tile} * 256, layout::by_token(16, 16), 16};
  }
};

// The rows that a window gives to prefetch are those that kernels use `distance` rows later.
template <cpu::tuning T, std::uint32_t BlocksAhead>
void check_rows_ahead(std::initializer_list<std::uint32_t> distances) {
  constexpr std::size_t tiles = 12;
  constexpr std::size_t rows = 16 * tiles;
  const adjacent_pages pages{std::vector<fp16>(16 * rows), std::vector<fp16>(16 * rows)};
  access_plan plan;
  for (std::uint32_t tile = 0; tile < tiles; ++tile) {
    for (const stream kind : {stream::k_by_token, stream::v_by_token}) {
      page_read read;
      read.kind = kind;
      read.token_tile = tile;
      read.tokens = plan.begin_slice();
      plan.add_run(read.tokens, 0, 16);
      read.dims = plan.begin_slice();
      plan.add_run(read.dims, 0, 16);
      plan.add(read);
    }
  }
  constexpr auto level = cpu::cache_level::l1;
  for (const std::uint32_t distance : distances) {
    CAPTURE(distance);
    cpu::row_window<fp16, T, BlocksAhead> window;
    std::size_t first = 0;  // row of the current block of K
    for (window.begin(plan, 0, plan.reads().size(), pages, 0); window.k().count > 0;
         window.advance(plan, pages), first += T.block_rows) {
      REQUIRE(window.k().rows[0] == pages.k.data() + first * 16);
      const auto k = window.template k_ahead<level>(distance);
      const auto v = window.template v_ahead<level>(distance);  // after the V block before
      for (std::size_t t = 0; t < T.block_rows; ++t) {
        const std::size_t row = first + t + distance;
        if (row < rows) {
          REQUIRE((k && k[t] == pages.k.data() + row * 16));
        }
        if (first > 0 && row - T.block_rows < rows) {
          REQUIRE((v && v[t] == pages.v.data() + (row - T.block_rows) * 16));
        }
      }
    }
    CHECK(first == rows);
  }
}

}  // namespace

TEST_CASE("row kernels: products and sums of rows, all heads at once, all head sizes") {
  check_head_sizes<1, fp16, 16, 48, 64, 80, 96, 128, 192, 240, 256>(101);
  check_head_sizes<std::min(2u, most), fp16, 16, 48, 64, 80, 96, 128, 192, 240, 256>(101);
  check_head_sizes<std::min(3u, most), fp16, 16, 48, 64, 80, 96, 128, 192, 240, 256>(101);
  check_head_sizes<std::min(4u, most), fp16, 16, 48, 64, 80, 96, 128, 192, 240, 256>(101);
  check_head_sizes<most, fp16, 16, 48, 64, 80, 96, 128, 192, 240, 256>(101);
}

// Heads and head size decide how kernels are unrolled, the element type only how they load: so
// pairs of both with each type cover what all three together would.
TEST_CASE_TEMPLATE("row kernels: the other elements", E, fp32, bf16) {
  check_head_sizes<1, E, 16, 48, 64, 80, 96, 128, 192, 240, 256>(101);
  check_head_sizes<std::min(2u, most), E, 64, 80>(103);
  check_head_sizes<std::min(3u, most), E, 64, 80>(103);
  check_head_sizes<std::min(4u, most), E, 64, 80>(103);
  check_head_sizes<most, E, 64, 80, 256>(103);
}

TEST_CASE_TEMPLATE("row kernels of K and V by turns", Packed, fp32, fp16, bf16, std::int8_t, fp8,
                   int4_group) {
  check_interleaved<16, 16, Packed>(301);
  check_interleaved<64, 64, Packed>(302);
  check_interleaved<80, 96, Packed>(303);
  check_interleaved<128, 128, Packed>(304);
  check_interleaved<256, 64, Packed>(305);
}

TEST_CASE("rows to prefetch are so many rows ahead") {
  check_rows_ahead<cpu::tuning{}, 1>({1, 4, 15, 16});
  check_rows_ahead<cpu::tuning{}, 3>({1, 16, 17, 30, 32, 33, 48});
  check_rows_ahead<cpu::tuning{.block_rows = 32}, 2>({4, 31, 32, 33, 64});
}
