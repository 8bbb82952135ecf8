#pragma once
// The score kernel of the CPU path: products of a group's queries with K by dim, for the dims that were chosen.

#include <span>
#include <vector>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/cpu/head_blocks-inl.hpp"
#include "instinfer/layout/head_pages.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// One dim of K whose tokens are contiguous: column[t], and which dim it is.
template <Element E>
struct column {
  const E* tokens;
  std::uint32_t dim;
};

// products[h * stride + t] = sum over the columns of q_h[dim] * column[t], for the tokens of `run`. q [Heads, q_stride].
// `ahead`: the columns of the next tile, to bring to L2 meanwhile.
template <std::uint32_t Heads, Element E>
HWY_INLINE void score_columns(std::span<const column<E>> columns, index_run run, const float* q,
                              std::size_t q_stride, float* products, std::size_t stride,
                              std::span<const column<E>> ahead) {
  constexpr std::uint32_t vectors =
      register_budget / heads_at_once;  // of tokens at once, to overlap the sums' latency
  std::uint32_t t = run.first;
  for (; t + vectors * lanes <= run.last; t += vectors * lanes) {
    float_vec acc[Heads * vectors];
    HWY_UNROLL(16)
    for (float_vec& a : acc) {
      a = hn::Zero(float_tag{});
    }
    for (std::size_t c = 0; c < columns.size(); ++c) {
      HWY_UNROLL(4)
      for (std::uint32_t j = 0; j < vectors; ++j) {
        const float_vec k = load(columns[c].tokens + t + j * lanes);
        HWY_UNROLL(4)
        for (std::uint32_t h = 0; h < Heads; ++h) {
          acc[h * vectors + j] = hn::MulAdd(
              k, hn::Set(float_tag{}, q[h * q_stride + columns[c].dim]), acc[h * vectors + j]);
        }
      }
      if (c < ahead.size()) {
        for (std::uint32_t line = 0; line < vectors * lanes * sizeof(E); line += 64) {
          prefetch(reinterpret_cast<const char*>(ahead[c].tokens + t) + line);
        }
      }
    }
    HWY_UNROLL(4)
    for (std::uint32_t h = 0; h < Heads; ++h) {
      HWY_UNROLL(4)
      for (std::uint32_t j = 0; j < vectors; ++j) {
        hn::StoreU(acc[h * vectors + j], float_tag{}, products + h * stride + t + j * lanes);
      }
    }
  }
  for (; t < run.last; ++t) {
    for (std::uint32_t h = 0; h < Heads; ++h) {
      float product = 0.0f;
      for (const column<E>& c : columns) {
        product += q[h * q_stride + c.dim] * to_float(c.tokens[t]);
      }
      products[h * stride + t] = product;
    }
  }
}

// The wanted dims of one token tile as columns.
template <Element E>
struct column_block {
  std::vector<column<E>> columns;
  index_view tokens;  // wanted ones, local to the tile
  std::uint32_t first_token = 0;

  template <class Pages>
  void fill(const access_plan& plan, std::size_t& at, const Pages& pages) {
    columns.clear();
    const auto reads = plan.reads();
    for (const std::size_t begin = at;
         at < reads.size() && reads[at].token_tile == reads[begin].token_tile; ++at) {
      const auto page = pages(reads[at]);
      tokens = plan.tokens(reads[at]);
      first_token = reads[at].token_tile * page.shape.tokens;
      const std::uint32_t first_dim = reads[at].dim_tile * page.shape.dims;
      plan.dims(reads[at]).for_each([&](std::uint32_t i) {
        columns.push_back({page.data + std::size_t{i} * page.shape.dim_stride, first_dim + i});
      });
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
