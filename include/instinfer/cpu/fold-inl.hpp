#pragma once
// Fold kernels of the CPU path: weighted sums of V rows, and of any tile, for a group of query heads.

#include "instinfer/cpu/score-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// o[h * Dims + i] += sum over t < count of weights[h * stride + t] * rows[t][i], for rows of Dims contiguous elements.
// The sums of Heads x `vectors` vectors stay in registers over all rows. With `ahead`, brings those rows to L2 meanwhile.
template <std::uint32_t Heads, std::uint32_t Dims, Element E>
HWY_INLINE void fold_rows(const E* const* rows, std::size_t count, const float* weights,
                          std::size_t stride, float* o, const E* const* ahead) {
  constexpr std::uint32_t in_row = Dims / lanes;
  constexpr std::uint32_t fitting = std::min(in_row, std::bit_floor(register_budget / Heads));
  constexpr std::uint32_t vectors = in_row % fitting == 0 ? fitting : 1;
  for (std::uint32_t first = 0; first < Dims; first += vectors * lanes) {
    float_vec acc[Heads * vectors];
    HWY_UNROLL(4)
    for (std::uint32_t h = 0; h < Heads; ++h) {
      HWY_UNROLL(16)
      for (std::uint32_t j = 0; j < vectors; ++j) {
        acc[h * vectors + j] = hn::LoadU(float_tag{}, o + h * Dims + first + j * lanes);
      }
    }
    for (std::size_t t = 0; t < count; ++t) {
      const E* row = rows[t] + first;
      HWY_UNROLL(16)
      for (std::uint32_t j = 0; j < vectors; ++j) {
        const float_vec v = load(row + j * lanes);
        HWY_UNROLL(4)
        for (std::uint32_t h = 0; h < Heads; ++h) {
          acc[h * vectors + j] =
              hn::MulAdd(v, hn::Set(float_tag{}, weights[h * stride + t]), acc[h * vectors + j]);
        }
      }
      if (ahead != nullptr) {
        prefetch_rows<Dims>(ahead + t, 1, first / (vectors * lanes), Dims / (vectors * lanes));
      }
    }
    HWY_UNROLL(4)
    for (std::uint32_t h = 0; h < Heads; ++h) {
      HWY_UNROLL(16)
      for (std::uint32_t j = 0; j < vectors; ++j) {
        hn::StoreU(acc[h * vectors + j], float_tag{}, o + h * Dims + first + j * lanes);
      }
    }
  }
}

// o[h * o_stride + i] += sum over the wanted tokens of weights[h * stride + t] * V[t, i] for the dims of any tile, element
// by element. o starts at the page's first dim; weights are indexed by the page's local token.
template <Element E>
void fold_any(const layout::tile_view<E>& page, index_view tokens, std::uint32_t group,
              const float* weights, std::size_t stride, float* o, std::size_t o_stride) {
  tokens.for_each([&](std::uint32_t t) {
    for (std::uint32_t i = 0; i < page.shape.dims; ++i) {
      const float v = to_float(page.data[page.shape.offset(t, i)]);
      for (std::uint32_t h = 0; h < group; ++h) {
        o[h * o_stride + i] += weights[h * stride + t] * v;
      }
    }
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
