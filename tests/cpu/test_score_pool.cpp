// Scores of summary rows, index keys and rows of pages against the definitions in double, for all
// numbers of heads and for sets with holes.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "instinfer/cpu/score/row_passes-inl.hpp"
#include "instinfer/cpu/score/score_pool-inl.hpp"
#include "instinfer/layout/head_pages.hpp"
#include "instinfer/summaries/cluster_index.hpp"
#include "instinfer/summaries/index_keys.hpp"
#include "instinfer/summaries/page_bounds.hpp"
#include "tests/support/normals.hpp"

using namespace instinfer;

namespace {

constexpr int dims = 64;
using format = kv_format<fp16, dims>;

struct pool : cpu::score_pool {
  pool() { begin_scores(); }
};

std::vector<float> random_values(unsigned seed, std::size_t n) {
  std::mt19937 random(seed);
  normal_distribution normal;
  std::vector<float> x(n);
  std::ranges::generate(x, [&] { return normal(random); });
  return x;
}

double wide(float x) { return static_cast<double>(x); }

// Everything, parts of blocks, and single members.
index_set set_with_holes(std::uint32_t n, unsigned seed) {
  index_set set;
  if (seed == 0) {
    set.add(0, n);
    return set;
  }
  std::mt19937 random(seed);
  for (std::uint32_t i = 0; i < n; ++i) {
    if (random() % 5 != 0) {
      set.add(i);
    }
  }
  return set;
}

}  // namespace

TEST_CASE("bounds of groups of tokens, scored as stored") {
  attention::page_bounds<16>::state<format> boxes;
  const std::vector<float> keys = random_values(1, 16u * 45 * dims);
  boxes.reserve(16 * 45);
  for (std::size_t t = 0; t < 16 * 45; ++t) {
    std::vector<fp16> k(dims);
    std::transform(keys.begin() + static_cast<std::ptrdiff_t>(t * dims),
                   keys.begin() + static_cast<std::ptrdiff_t>((t + 1) * dims), k.begin(),
                   from_float<fp16>);
    boxes.append(k, k);
  }
  for (std::uint32_t group = 1; group <= 17; ++group) {
    const std::vector<float> q = random_values(group, group * dims);
    const attention::query_group queries{.values = q, .group = group, .logits = {}};
    const index_set set = set_with_holes(45, group % 4);
    pool scorer;
    const auto logits = scorer.score_rows(queries, set, boxes);
    for (std::uint32_t h = 0; h < group; ++h) {
      std::size_t at = 0;
      set.view().for_each([&](std::uint32_t u) {
        double bound = 0;
        for (std::size_t i = 0; i < dims; ++i) {
          double least = 1e9, most = -1e9;
          for (std::size_t t = u * 16; t < (u + 1) * 16; ++t) {
            const double k = wide(to_float(from_float<fp16>(keys[t * dims + i])));
            least = std::min(least, k);
            most = std::max(most, k);
          }
          bound += std::max(wide(q[h * dims + i]) * least, wide(q[h * dims + i]) * most);
        }
        CHECK(wide(logits.head(h)[at++]) ==
              doctest::Approx(bound / std::sqrt(double{dims})).epsilon(1e-5));
      });
    }
  }
}

TEST_CASE("index keys: the weighted sum of the heads' positive products") {
  using index = attention::index_keys<dims>;
  index::state<format> keys;
  constexpr std::uint32_t tokens = 83;
  const std::vector<float> values = random_values(2, tokens * dims);
  const std::vector<fp16> row(dims);
  keys.reserve(tokens);
  for (std::size_t t = 0; t < tokens; ++t) {
    keys.append(row, row, std::span(values).subspan(t * dims, dims));
  }
  for (std::uint32_t heads = 1; heads <= 17; ++heads) {
    const std::vector<float> q = random_values(heads, heads * dims);
    const std::vector<float> weights = random_values(heads + 50, heads);
    const attention::index_query query{.queries = q, .weights = weights};
    const index_set set = set_with_holes(tokens, heads % 4);
    index_set chosen = set_with_holes(heads, heads % 3);
    pool scorer;
    const auto scores = scorer.score_index(query, chosen, set, keys);
    std::size_t at = 0;
    set.view().for_each([&](std::uint32_t t) {
      double wanted = 0;
      chosen.view().for_each([&](std::uint32_t h) {
        const auto coded =
            attention::encode_rotated_index_key<dims>(std::span(q).subspan(h * dims).first<dims>());
        double product = 0;
        for (std::size_t i = 0; i < dims; ++i) {
          product += wide(coded[i]) * wide(keys.key(t)[i]);
        }
        wanted += wide(weights[h]) * std::max(0.0, product);
      });
      CHECK(wide(scores.head(0)[at++]) == doctest::Approx(wanted).epsilon(1e-4).scale(1));
    });
  }
}

TEST_CASE("rows of a page: scores, and sums with weights, also where elements are not in rows") {
  using layout::tile;
  constexpr std::uint32_t tokens = 37;
  for (const tile& shape : {layout::by_token(tokens, dims), tile{tokens, dims, dims + 16, 1, 5},
                            layout::by_dim(tokens, dims)}) {
    std::vector<fp16> page(shape.elements());
    std::ranges::transform(random_values(7, page.size()), page.begin(), from_float<fp16>);
    const layout::tile_view<fp16> view{page.data(), shape, tokens};
    index_set all_dims;
    all_dims.add(0, dims);
    for (std::uint32_t group = 1; group <= 17; ++group) {
      const index_set set = set_with_holes(tokens, group % 4);
      const std::size_t stride = set.count() + 3;
      const std::vector<float> q = random_values(group, group * dims);
      const std::vector<float> weights = random_values(group + 1, group * stride);
      std::vector<float> products(group * stride), sums(group * dims, 1.0f);
      cpu::score_page<dims>(view, set, all_dims, group, q.data(), products.data(), stride);
      cpu::add_page<dims>(view, set, group, weights.data(), stride, sums.data());
      for (std::uint32_t h = 0; h < group; ++h) {
        std::vector<double> wanted(dims, 1.0);
        std::size_t n = 0;
        set.view().for_each([&](std::uint32_t t) {
          double product = 0;
          for (std::uint32_t i = 0; i < dims; ++i) {
            const double x = wide(view(t, i));
            product += x * wide(q[h * dims + i]);
            wanted[i] += x * wide(weights[h * stride + n]);
          }
          CHECK(wide(products[h * stride + n++]) ==
                doctest::Approx(product).epsilon(1e-5).scale(10));
        });
        for (std::uint32_t i = 0; i < dims; ++i) {
          CHECK(wide(sums[h * dims + i]) == doctest::Approx(wanted[i]).epsilon(1e-5).scale(10));
        }
      }
    }
  }
}
