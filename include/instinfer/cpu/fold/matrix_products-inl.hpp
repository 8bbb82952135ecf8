#pragma once
// The products of the fold by matrix tiles (cpu/fold/matrix_fold-inl.hpp): rows of K with queries,
// and weights with rows of V.

#include <array>
#include <bit>
#include <span>
#include <vector>

#include "instinfer/cpu/fold/matrix_tiles-inl.hpp"

#if INSTINFER_MATRIX_TILES

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

inline constexpr std::uint32_t float_parts = 3;  // of a float in bf16
inline constexpr std::uint32_t key_tiles = 4;    // of K at once: a tile of q serves 64 rows
inline constexpr std::uint32_t value_steps = 2;  // of 32 rows of V

// 16 rows in memory.
struct tile_of_rows {
  const bf16* row;
  std::size_t stride_bytes;
};

// The part of x that bf16 has room for.
inline bf16 upper_half(float x) {
  return bf16{static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(x) >> 16)};
}

// The parts of q [group, KDim] as right operands, pairs of dims by heads: to [group / 16,
// KDim / 32, part].
template <std::uint32_t KDim>
void split_queries(std::span<const float> q, std::vector<bf16_tile>& to) {
  constexpr std::uint32_t k_tiles = KDim / 32;
  const auto group = static_cast<std::uint32_t>(q.size() / KDim);
  const std::uint32_t head_tiles = (group + matrix_rows - 1) / matrix_rows;
  to.assign(std::size_t{head_tiles} * k_tiles * float_parts, {});
  for (std::uint32_t h = 0; h < group; ++h) {
    for (std::uint32_t d = 0; d < KDim; ++d) {
      float left = q[std::size_t{h} * KDim + d];
      bf16_tile* tile = to.data() + (h / matrix_rows * k_tiles + d / 32) * float_parts;
      for (std::uint32_t part = 0; part < float_parts; ++part) {
        const bf16 of = upper_half(left);
        tile[part].values[d % 32 / 2][h % matrix_rows * 2 + d % 2] = of;
        left -= to_float(of);
      }
    }
  }
}

// products[row, head] = K times q, for 16 heads and 4 tiles of K. q [KDim / 32, part]. A tile of K
// serves all parts of q.
template <std::uint32_t KDim>
HWY_NOINLINE void multiply_keys(const std::array<tile_of_rows, key_tiles>& k, const bf16_tile* q,
                                std::array<float_tile, key_tiles>& products) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (std::uint32_t d = 0; d < KDim; d += 32, q += float_parts) {
    _tile_loadd(4, &q[0], 64);
    _tile_loadd(5, &q[1], 64);
    _tile_loadd(6, &q[2], 64);
    _tile_loadd(7, k[0].row + d, k[0].stride_bytes);
    _tile_dpbf16ps(0, 7, 4);
    _tile_dpbf16ps(0, 7, 5);
    _tile_dpbf16ps(0, 7, 6);
    _tile_loadd(7, k[1].row + d, k[1].stride_bytes);
    _tile_dpbf16ps(1, 7, 4);
    _tile_dpbf16ps(1, 7, 5);
    _tile_dpbf16ps(1, 7, 6);
    _tile_loadd(7, k[2].row + d, k[2].stride_bytes);
    _tile_dpbf16ps(2, 7, 4);
    _tile_dpbf16ps(2, 7, 5);
    _tile_dpbf16ps(2, 7, 6);
    _tile_loadd(7, k[3].row + d, k[3].stride_bytes);
    _tile_dpbf16ps(3, 7, 4);
    _tile_dpbf16ps(3, 7, 5);
    _tile_dpbf16ps(3, 7, 6);
  }
  _tile_stored(0, &products[0], 64);
  _tile_stored(1, &products[1], 64);
  _tile_stored(2, &products[2], 64);
  _tile_stored(3, &products[3], 64);
}

// o[head, dim] += the weights [head, row] times V, for 16 heads. weights [32 rows, part], v [32
// rows, VDim / 16], o [VDim / 16].
template <std::uint32_t VDim>
HWY_NOINLINE void add_values(const std::array<bf16_tile, value_steps * float_parts>& weights,
                             const bf16_tile* v, float_tile* o) {
  constexpr std::uint32_t v_tiles = VDim / matrix_rows;
  _tile_loadd(2, &weights[0], 64);
  _tile_loadd(3, &weights[1], 64);
  _tile_loadd(4, &weights[2], 64);
  _tile_loadd(5, &weights[3], 64);
  _tile_loadd(6, &weights[4], 64);
  _tile_loadd(7, &weights[5], 64);
  for (std::uint32_t n = 0; n < v_tiles; ++n) {
    _tile_loadd(0, &o[n], 64);
    _tile_loadd(1, &v[n], 64);
    _tile_dpbf16ps(0, 2, 1);
    _tile_dpbf16ps(0, 3, 1);
    _tile_dpbf16ps(0, 4, 1);
    _tile_loadd(1, &v[v_tiles + n], 64);
    _tile_dpbf16ps(0, 5, 1);
    _tile_dpbf16ps(0, 6, 1);
    _tile_dpbf16ps(0, 7, 1);
    _tile_stored(0, &o[n], 64);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();

#endif
