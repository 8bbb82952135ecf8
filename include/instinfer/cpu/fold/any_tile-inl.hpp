#pragma once
// Score and fold of any tile, element by element, for layouts with pages of neither whole rows nor
// whole columns.

#include "instinfer/core/index_set.hpp"
#include "instinfer/cpu/simd-inl.hpp"
#include "instinfer/layout/head_pages.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Adds the products over the wanted dims of any tile to products [group, stride], element by
// element. products is indexed by the page's local token. q [group, q_stride] starts at the page's
// first dim.
template <class View>
void score_any(const View& page, index_view tokens, index_view dims, std::uint32_t group,
               const float* q, std::size_t q_stride, float* products, std::size_t stride) {
  tokens.for_each([&](std::uint32_t t) {
    dims.for_each([&](std::uint32_t i) {
      const float k = page(t, i);
      for (std::uint32_t h = 0; h < group; ++h) {
        products[h * stride + t] += k * q[h * q_stride + i];
      }
    });
  });
}

// o[h * o_stride + i] += sum over the wanted tokens of weights[h * stride + t] * V[t, i], for the
// dims of any tile, element by element. o starts at the page's first dim; weights are indexed by
// the page's local token.
template <class View>
void fold_any(const View& page, index_view tokens, std::uint32_t group, const float* weights,
              std::size_t stride, float* o, std::size_t o_stride) {
  tokens.for_each([&](std::uint32_t t) {
    for (std::uint32_t i = 0; i < page.shape.dims; ++i) {
      const float v = page(t, i);
      for (std::uint32_t h = 0; h < group; ++h) {
        o[h * o_stride + i] += weights[h * stride + t] * v;
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
