#pragma once
// The score kernel of the CPU path: products of a group's queries with K by dim, for the selected
// dims.

#include <algorithm>
#include <span>
#include <vector>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/cpu/coded_load-inl.hpp"
#include "instinfer/cpu/head_blocks-inl.hpp"
#include "instinfer/layout/head_pages.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// One dim of K with contiguous tokens, its number, and the scale of its values.
template <class Storage>
struct column {
  const typename codec_of<Storage>::packed* tokens;
  std::uint32_t dim;
  float scale = 1.0f;
};

// Columns per pass over the tokens: few enough for hardware prefetchers to follow each, enough that
// sums are rarely loaded and stored.
inline constexpr std::size_t columns_at_once = 4;

// products[h * stride + t] (+)= sum over 1 to columns_at_once columns of q_h[dim] * column[t], for
// the tokens of `run`; adds if `more`. q [Heads, q_stride]. Prefetches the columns `next` (none, or
// columns_at_once).
template <std::uint32_t Heads, class Storage>
HWY_INLINE void add_columns(std::span<const column<Storage>> columns, index_run run, const float* q,
                            std::size_t q_stride, float* products, std::size_t stride, bool more,
                            std::span<const column<Storage>> next) {
  using codec = codec_of<Storage>;
  using packed = typename codec::packed;
  constexpr std::uint32_t group = packed_elements<packed>;
  const packed* tokens[columns_at_once];
  float query[Heads][columns_at_once];
  HWY_UNROLL(4)
  for (std::size_t c = 0; c < columns_at_once; ++c) {  // a missing column has weight 0
    const column<Storage>& from = columns[std::min(c, columns.size() - 1)];
    tokens[c] = from.tokens;
    for (std::uint32_t h = 0; h < Heads; ++h) {
      query[h][c] = c < columns.size() ? q[h * q_stride + from.dim] * from.scale : 0.0f;
    }
  }
  constexpr std::uint32_t line = std::max<std::uint32_t>(line_bytes / sizeof(packed), 1) * group;
  // Vectors begin where a group allows it. Results for tokens before the run are then not used.
  std::uint32_t t = group == 1 ? run.first : run.first / lanes * lanes;
  for (; t + lanes <= run.last; t += lanes) {
    for (std::size_t c = 0; c < next.size() && t % line < lanes; ++c) {
      prefetch(next[c].tokens + t / group);
    }
    stored_vec k[columns_at_once];
    HWY_UNROLL(4)
    for (std::size_t c = 0; c < columns_at_once; ++c) {
      k[c] = load_at(tokens[c], t);
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
        sum += query[h][c] * value_at<codec>(tokens[c], t);
      }
      products[h * stride + t] = sum;
    }
  }
}

// products[h * stride + t] = sum over the columns of q_h[dim] * column[t], for the tokens of `run`.
// q [Heads, q_stride]. `next`: the columns of the next tile, to prefetch at the end.
template <std::uint32_t Heads, class Storage>
HWY_NOINLINE void score_columns(std::span<const column<Storage>> columns, index_run run,
                                const float* q, std::size_t q_stride, float* products,
                                std::size_t stride, std::span<const column<Storage>> next) {
  if (columns.empty()) {
    for (std::uint32_t h = 0; h < Heads; ++h) {
      std::fill_n(products + h * stride + run.first, run.size(), 0.0f);
    }
  }
  for (std::size_t c = 0; c < columns.size(); c += columns_at_once) {
    const std::size_t after = c + columns_at_once;
    const auto ahead = after < columns.size() ? columns.subspan(after) : next;
    add_columns<Heads, Storage>(columns.subspan(c, std::min(columns_at_once, columns.size() - c)),
                                run, q, q_stride, products, stride, c > 0,
                                ahead.first(std::min(columns_at_once, ahead.size())));
  }
}

// The wanted dims of one token tile as columns.
template <class Storage>
struct column_block {
  using packed = typename codec_of<Storage>::packed;

  std::vector<column<Storage>> columns;
  index_view tokens;  // the wanted tokens, local to the tile
  std::uint32_t first_token = 0;

  // Takes reads [at, last) of a plan, which are all stored in the same way; `at` moves to the next
  // tile.
  template <class Pages>
  void fill(const access_plan& plan, std::size_t& at, std::size_t last, const Pages& pages) {
    columns.clear();
    const auto reads = plan.reads().first(last);
    for (const std::size_t begin = at;
         at < reads.size() && reads[at].token_tile == reads[begin].token_tile; ++at) {
      const auto view = pages(reads[at]);
      const auto& page = layout::view_as<Storage>(view);
      const float scale = page.scale() * load_factor<packed>;
      tokens = plan.tokens(reads[at]);
      first_token = reads[at].token_tile * page.shape.tokens;
      const std::uint32_t first_dim = reads[at].dim_tile * page.shape.dims;
      plan.dims(reads[at]).for_each([&](std::uint32_t i) {
        columns.push_back(
            {page.data + page.shape.offset(0, i) / packed_elements<packed>, first_dim + i, scale});
      });
    }
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
