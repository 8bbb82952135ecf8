#pragma once
// The score kernel of the CPU path: products of a group's queries with K by dim, for the dims that were chosen.

#include <algorithm>
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

// Columns that one pass over the tokens takes: few enough for hardware prefetchers to follow each, enough that sums are
// seldom loaded and stored.
inline constexpr std::size_t columns_at_once = 4;

// products[h * stride + t] (+)= sum over 1 to columns_at_once columns of q_h[dim] * column[t], for the tokens of `run`; adds
// where `more`. q [Heads, q_stride]. Brings the columns `next` (none, or columns_at_once) to the cache.
template <std::uint32_t Heads, Element E>
HWY_INLINE void add_columns(std::span<const column<E>> columns, index_run run, const float* q,
                            std::size_t q_stride, float* products, std::size_t stride, bool more,
                            std::span<const column<E>> next) {
  const E* tokens[columns_at_once];
  float query[Heads][columns_at_once];
  HWY_UNROLL(4)
  for (std::size_t c = 0; c < columns_at_once; ++c) {  // a missing column weighs nothing
    const column<E>& from = columns[std::min(c, columns.size() - 1)];
    tokens[c] = from.tokens;
    for (std::uint32_t h = 0; h < Heads; ++h) {
      query[h][c] = c < columns.size() ? q[h * q_stride + from.dim] : 0.0f;
    }
  }
  constexpr std::uint32_t line = 64 / sizeof(E);
  std::uint32_t t = run.first;
  for (; t + lanes <= run.last; t += lanes) {
    for (std::size_t c = 0; c < next.size() && t % line < lanes; ++c) {
      prefetch(next[c].tokens + t);
    }
    float_vec k[columns_at_once];
    HWY_UNROLL(4)
    for (std::size_t c = 0; c < columns_at_once; ++c) {
      k[c] = load(tokens[c] + t);
    }
    HWY_UNROLL(8)
    for (std::uint32_t h = 0; h < Heads; ++h) {
      float* to = products + h * stride + t;
      float_vec sum = more ? hn::LoadU(float_tag{}, to) : hn::Zero(float_tag{});
      HWY_UNROLL(4)
      for (std::size_t c = 0; c < columns_at_once; ++c) {
        sum = hn::MulAdd(k[c], hn::Set(float_tag{}, query[h][c]), sum);
      }
      hn::StoreU(sum, float_tag{}, to);
    }
  }
  for (; t < run.last; ++t) {
    for (std::uint32_t h = 0; h < Heads; ++h) {
      float sum = more ? products[h * stride + t] : 0.0f;
      for (std::size_t c = 0; c < columns_at_once; ++c) {
        sum += query[h][c] * to_float(tokens[c][t]);
      }
      products[h * stride + t] = sum;
    }
  }
}

// products[h * stride + t] = sum over the columns of q_h[dim] * column[t], for the tokens of `run`. q [Heads, q_stride].
// `next`: the columns of the next tile, to bring to the cache at the end.
template <std::uint32_t Heads, Element E>
HWY_INLINE void score_columns(std::span<const column<E>> columns, index_run run, const float* q,
                              std::size_t q_stride, float* products, std::size_t stride,
                              std::span<const column<E>> next) {
  if (columns.empty()) {
    for (std::uint32_t h = 0; h < Heads; ++h) {
      std::fill_n(products + h * stride + run.first, run.size(), 0.0f);
    }
  }
  for (std::size_t c = 0; c < columns.size(); c += columns_at_once) {
    const std::size_t after = c + columns_at_once;
    const auto ahead = after < columns.size() ? columns.subspan(after) : next;
    add_columns<Heads>(columns.subspan(c, std::min(columns_at_once, columns.size() - c)), run, q,
                       q_stride, products, stride, c > 0,
                       ahead.first(std::min(columns_at_once, ahead.size())));
  }
}

// The wanted dims of one token tile as columns.
template <Element E>
struct column_block {
  std::vector<column<E>> columns;
  index_view tokens;  // wanted ones, local to the tile
  std::uint32_t first_token = 0;

  // Takes the tile that begins at read `at`, which moves on, of those before `last`; empty at the end.
  template <class Pages>
  void fill(const access_plan& plan, std::size_t& at, std::size_t last, const Pages& pages) {
    columns.clear();
    const auto reads = plan.reads();
    for (const std::size_t begin = at; at < last && reads[at].token_tile == reads[begin].token_tile;
         ++at) {
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
