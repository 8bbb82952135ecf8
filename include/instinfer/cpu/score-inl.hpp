#pragma once
// Score kernels of the CPU path: products of a group's queries with K rows (by token), K columns (by dim), and any tile.

#include <algorithm>
#include <bit>
#include <span>

#include "instinfer/cpu/simd-inl.hpp"
#include "instinfer/layout/head_pages.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Query heads that share one conversion of K and V; larger groups take several passes over rows in L1.
inline constexpr std::uint32_t heads_at_once = lanes < 4 ? lanes : 4;

// Calls f.template operator()<Heads>(first_head) over `group` heads, heads_at_once at a time.
template <class F>
HWY_INLINE void for_head_blocks(std::uint32_t group, F&& f) {
  std::uint32_t h = 0;
  for (; h + heads_at_once <= group; h += heads_at_once) {
    f.template operator()<heads_at_once>(h);
  }
  switch (group - h) {
    case 1:
      f.template operator()<1>(h);
      break;
    case 2:
      f.template operator()<std::min(2u, heads_at_once)>(h);
      break;
    case 3:
      f.template operator()<std::min(3u, heads_at_once)>(h);
      break;
    default:
      break;
  }
}

// Brings part `part` of `parts` of some rows of Dims contiguous elements to the cache, in the order of their addresses: that
// is what hardware prefetchers follow.
template <std::uint32_t Dims, Element E>
HWY_INLINE void prefetch_rows(const E* const* rows, std::uint32_t count, std::uint32_t part,
                              std::uint32_t parts) {
  constexpr std::uint32_t in_line = 64 / sizeof(E);
  constexpr std::uint32_t lines = (Dims + in_line - 1) / in_line;
  for (std::uint32_t line = count * lines * part / parts; line < count * lines * (part + 1) / parts;
       ++line) {
    prefetch(rows[line / lines] + line % lines * in_line);
  }
}

// products[h * stride + t] = q_h . rows[t], for `count` rows of Dims contiguous elements; count is a multiple of lanes.
// q [Heads, Dims]. A register tile of lanes sums, Heads x (lanes / Heads) rows, is summed across by one tree. With
// `ahead`, brings those rows to L2 meanwhile.
template <std::uint32_t Heads, std::uint32_t Dims, Element E>
HWY_INLINE void score_rows(const E* const* rows, std::size_t count, const float* q, float* products,
                           std::size_t stride, const E* const* ahead) {
  constexpr std::uint32_t slots = std::bit_ceil(Heads);  // 3 heads take 4 places in the tile
  constexpr std::uint32_t tokens = lanes / slots;
  HWY_ALIGN float sums[lanes];
  for (std::size_t t = 0; t < count; t += tokens) {
    float_vec tile[lanes];
    HWY_UNROLL(16)
    for (std::uint32_t i = 0; i < lanes; ++i) {
      tile[i] = hn::Zero(float_tag{});
    }
    for (std::uint32_t i = 0; i < Dims; i += lanes) {
      float_vec query[Heads];
      HWY_UNROLL(4)
      for (std::uint32_t h = 0; h < Heads; ++h) {
        query[h] = hn::LoadU(float_tag{}, q + h * Dims + i);
      }
      HWY_UNROLL(16)
      for (std::uint32_t j = 0; j < tokens; ++j) {
        const float_vec k = load(rows[t + j] + i);
        HWY_UNROLL(4)
        for (std::uint32_t h = 0; h < Heads; ++h) {
          tile[h * tokens + j] = hn::MulAdd(k, query[h], tile[h * tokens + j]);
        }
      }
      if (ahead != nullptr) {
        prefetch_rows<Dims>(ahead + t, tokens, i / lanes, Dims / lanes);
      }
    }
    const float_vec all = sum_each(tile);
    if constexpr (Heads == 1) {
      hn::StoreU(all, float_tag{}, products + t);
    } else {
      hn::Store(all, float_tag{}, sums);
      HWY_UNROLL(4)
      for (std::uint32_t h = 0; h < Heads; ++h) {
        std::copy_n(sums + h * tokens, tokens, products + h * stride + t);
      }
    }
  }
}

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

// Adds to products [group, stride], indexed by the page's local token, the products over the wanted dims of any tile,
// element by element. q [group, q_stride] from the page's first dim on.
template <Element E>
void score_any(const layout::tile_view<E>& page, index_view tokens, index_view dims,
               std::uint32_t group, const float* q, std::size_t q_stride, float* products,
               std::size_t stride) {
  tokens.for_each([&](std::uint32_t t) {
    dims.for_each([&](std::uint32_t i) {
      const float k = to_float(page.data[page.shape.offset(t, i)]);
      for (std::uint32_t h = 0; h < group; ++h) {
        products[h * stride + t] += k * q[h * q_stride + i];
      }
    });
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
