#pragma once
// Score kernels of the CPU path: products of a group's queries with the wanted entries of one K page.

#include <algorithm>
#include <span>

#include "instinfer/cpu/simd-inl.hpp"
#include "instinfer/layout/head_pages.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Query heads that one pass over a page serves; larger groups take several passes over the page in L1.
inline constexpr std::uint32_t heads_at_once = 4;

// products[h * stride + t] = q_h . K[t, :] for the tokens of `run`, rows of `dims` contiguous elements.
// q is [heads, q_stride], already at the page's first dim.
template <std::uint32_t Heads, Element E>
HWY_INLINE void score_rows(const E* rows, std::size_t row_stride, std::uint32_t dims, index_run run,
                           const float* q, std::size_t q_stride, float* products,
                           std::size_t stride) {
  for (std::uint32_t t = run.first; t < run.last; ++t) {
    const E* row = rows + t * row_stride;
    float_vec acc[Heads];
    for (std::uint32_t h = 0; h < Heads; ++h) {
      acc[h] = hn::Zero(float_tag{});
    }
    for (std::uint32_t i = 0; i < dims; i += static_cast<std::uint32_t>(lanes())) {
      const float_vec k = load(row + i);
      for (std::uint32_t h = 0; h < Heads; ++h) {
        acc[h] = hn::MulAdd(k, hn::LoadU(float_tag{}, q + h * q_stride + i), acc[h]);
      }
    }
    for (std::uint32_t h = 0; h < Heads; ++h) {
      products[h * stride + t] += sum(acc[h]);
    }
  }
}

// products[h * stride + t] += q_h[i] K[t, i] for the tokens of `run` and one dim i whose tokens are contiguous.
template <std::uint32_t Heads, Element E>
HWY_INLINE void score_column(const E* column, index_run run, const float* q_dim,
                             std::size_t q_stride, float* products, std::size_t stride) {
  const auto step = static_cast<std::uint32_t>(lanes());
  std::uint32_t t = run.first;
  for (; t + step <= run.last; t += step) {
    const float_vec k = load(column + t);
    for (std::uint32_t h = 0; h < Heads; ++h) {
      float* to = products + h * stride + t;
      hn::StoreU(
          hn::MulAdd(k, hn::Set(float_tag{}, q_dim[h * q_stride]), hn::LoadU(float_tag{}, to)),
          float_tag{}, to);
    }
  }
  for (; t < run.last; ++t) {
    for (std::uint32_t h = 0; h < Heads; ++h) {
      products[h * stride + t] += to_float(column[t]) * q_dim[h * q_stride];
    }
  }
}

// Adds to products [heads, stride], indexed by the page's local token, the products over the wanted dims; unwanted
// entries are not read. q is [heads, q_stride] from the page's first dim on.
template <std::uint32_t Heads, Element E>
HWY_INLINE void score_page(const layout::tile_view<E>& page, index_view tokens, index_view dims,
                           const float* q, std::size_t q_stride, float* products,
                           std::size_t stride) {
  const layout::tile& shape = page.shape;
  for (const index_run run : tokens.runs()) {
    if (shape.dim_stride == 1 && dims.count() == shape.dims && shape.dims % lanes() == 0) {
      score_rows<Heads>(page.data, shape.token_stride, shape.dims, run, q, q_stride, products,
                        stride);
    } else if (shape.token_stride == 1) {
      dims.for_each([&](std::uint32_t i) HWY_ATTR {
        score_column<Heads>(page.data + shape.offset(0, i), run, q + i, q_stride, products, stride);
      });
    } else {  // any other mapping, or a few dims of a row: element by element
      for (std::uint32_t t = run.first; t < run.last; ++t) {
        dims.for_each([&](std::uint32_t i) {
          const float k = to_float(page.data[shape.offset(t, i)]);
          for (std::uint32_t h = 0; h < Heads; ++h) {
            products[h * stride + t] += k * q[h * q_stride + i];
          }
        });
      }
    }
  }
}

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
      f.template operator()<2>(h);
      break;
    case 3:
      f.template operator()<3>(h);
      break;
    default:
      break;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
