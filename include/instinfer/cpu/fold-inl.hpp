#pragma once
// Fold kernels of the CPU path: weighted sums of the wanted V rows of one page, for a group of query heads.

#include "instinfer/cpu/simd-inl.hpp"
#include "instinfer/layout/head_pages.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// o[h * o_stride + i] += sum over tokens t of weights[h * stride + t] * V[t, i], for the dims of one page.
// o starts at the page's first dim; weights are indexed by the page's local token.
template <std::uint32_t Heads, Element E>
HWY_INLINE void fold_page(const layout::tile_view<E>& page, index_view tokens, const float* weights,
                          std::size_t stride, float* o, std::size_t o_stride) {
  const layout::tile& shape = page.shape;
  if (shape.dim_stride == 1 && shape.dims % lanes() == 0) {
    for (std::uint32_t i = 0; i < shape.dims; i += static_cast<std::uint32_t>(lanes())) {
      float_vec acc[Heads];
      for (std::uint32_t h = 0; h < Heads; ++h) {
        acc[h] = hn::LoadU(float_tag{}, o + h * o_stride + i);
      }
      for (const index_run run : tokens.runs()) {
        for (std::uint32_t t = run.first; t < run.last; ++t) {
          const float_vec v = load(page.data + std::size_t{t} * shape.token_stride + i);
          for (std::uint32_t h = 0; h < Heads; ++h) {
            acc[h] = hn::MulAdd(v, hn::Set(float_tag{}, weights[h * stride + t]), acc[h]);
          }
        }
      }
      for (std::uint32_t h = 0; h < Heads; ++h) {
        hn::StoreU(acc[h], float_tag{}, o + h * o_stride + i);
      }
    }
    return;
  }
  tokens.for_each([&](std::uint32_t t) {  // any other mapping, element by element
    for (std::uint32_t i = 0; i < shape.dims; ++i) {
      const float v = to_float(page.data[shape.offset(t, i)]);
      for (std::uint32_t h = 0; h < Heads; ++h) {
        o[h * o_stride + i] += weights[h * stride + t] * v;
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
