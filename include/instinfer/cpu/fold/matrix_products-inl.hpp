#pragma once
// The products of the fold by matrix tiles (cpu/fold/matrix_fold-inl.hpp): rows of K with queries,
// and weights with rows of V. Queries and weights are in parts of bf16.

#include <span>
#include <vector>

#include "instinfer/cpu/fold/bf16_parts-inl.hpp"
#include "instinfer/cpu/fold/lines_ahead-inl.hpp"
#include "instinfer/cpu/fold/matrix_tiles-inl.hpp"

#if INSTINFER_MATRIX_TILES

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

inline constexpr std::uint32_t key_tiles = 4;    // of K at once: a tile of q serves 64 rows
inline constexpr std::uint32_t value_tiles = 4;  // of 32 rows of V: sums are loaded once for 128

// The parts of q [group, KDim] as right operands, pairs of dims by heads: to [group / 16,
// KDim / 32, part].
template <std::uint32_t KDim, std::uint32_t Parts>
void split_queries(std::span<const float> q, std::vector<bf16_tile>& to) {
  constexpr std::uint32_t k_tiles = KDim / 32;
  const auto group = static_cast<std::uint32_t>(q.size() / KDim);
  const std::uint32_t head_tiles = (group + matrix_rows - 1) / matrix_rows;
  to.assign(std::size_t{head_tiles} * k_tiles * Parts, {});
  for (std::uint32_t h = 0; h < group; ++h) {
    for (std::uint32_t d = 0; d < KDim; ++d) {
      bf16_tile* tile = to.data() + (h / matrix_rows * k_tiles + d / 32) * Parts;
      for (const bf16 part : bf16_parts<Parts>::of(q[std::size_t{h} * KDim + d])) {
        (tile++)->values[d % 32 / 2][h % matrix_rows * 2 + d % 2] = part;
      }
    }
  }
}

// The numbers of tile registers become text in g++'s intrinsics. So macros repeat what a loop or a
// template could.

// products[row, head] = K times q, for 16 heads and 4 tiles of K, on top of what is there if `add`.
// k [tiles, key_tiles], q [tiles, Parts]. A tile of K serves all parts of q.
template <std::uint32_t Parts>
HWY_NOINLINE void multiply_keys(const bf16_tile* k, const bf16_tile* q, std::uint32_t tiles,
                                bool add, float_tile* products, lines_ahead& ahead) {
  if (add) {
    _tile_loadd(0, &products[0], 64);
    _tile_loadd(1, &products[1], 64);
    _tile_loadd(2, &products[2], 64);
    _tile_loadd(3, &products[3], 64);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
#define INSTINFER_MULTIPLY_KEYS(sum) \
  _tile_loadd(7, &k[sum], 64);       \
  _tile_dpbf16ps(sum, 7, 4);         \
  if constexpr (Parts > 1) {         \
    _tile_dpbf16ps(sum, 7, 5);       \
  }                                  \
  if constexpr (Parts > 2) {         \
    _tile_dpbf16ps(sum, 7, 6);       \
  }
  for (std::uint32_t i = 0; i < tiles; ++i, k += key_tiles, q += Parts) {
    ahead.some();
    _tile_loadd(4, &q[0], 64);
    if constexpr (Parts > 1) {
      _tile_loadd(5, &q[1], 64);
    }
    if constexpr (Parts > 2) {
      _tile_loadd(6, &q[2], 64);
    }
    INSTINFER_MULTIPLY_KEYS(0)
    INSTINFER_MULTIPLY_KEYS(1)
    INSTINFER_MULTIPLY_KEYS(2)
    INSTINFER_MULTIPLY_KEYS(3)
  }
#undef INSTINFER_MULTIPLY_KEYS
  _tile_stored(0, &products[0], 64);
  _tile_stored(1, &products[1], 64);
  _tile_stored(2, &products[2], 64);
  _tile_stored(3, &products[3], 64);
}

// o[dim tile, head tile] += the weights of `heads` tiles of 16 heads times V. weights [heads, part,
// value_tiles], v [value_tiles, VDim / 16], o [VDim / 16, stride]. Tiles of V serve all heads.
template <std::uint32_t VDim, std::uint32_t Parts>
HWY_NOINLINE void add_values(const bf16_tile* weights, std::uint32_t heads, const bf16_tile* v,
                             float_tile* o, std::uint32_t stride, lines_ahead& ahead) {
  constexpr std::uint32_t v_tiles = VDim / matrix_rows;
#define INSTINFER_ADD_VALUES(sum)                                        \
  ahead.some();                                                          \
  _tile_loadd(sum, to, 64);                                              \
  for (std::uint32_t part = 0; part < Parts; ++part, w += value_tiles) { \
    _tile_loadd(2, &w[0], 64);                                           \
    _tile_dpbf16ps(sum, 2, 4);                                           \
    _tile_loadd(3, &w[1], 64);                                           \
    _tile_dpbf16ps(sum, 3, 5);                                           \
    _tile_loadd(2, &w[2], 64);                                           \
    _tile_dpbf16ps(sum, 2, 6);                                           \
    _tile_loadd(3, &w[3], 64);                                           \
    _tile_dpbf16ps(sum, 3, 7);                                           \
  }                                                                      \
  _tile_stored(sum, to, 64);                                             \
  ++to;
  for (std::uint32_t n = 0; n < v_tiles; ++n) {
    _tile_loadd(4, &v[n], 64);
    _tile_loadd(5, &v[v_tiles + n], 64);
    _tile_loadd(6, &v[2 * v_tiles + n], 64);
    _tile_loadd(7, &v[3 * v_tiles + n], 64);
    const bf16_tile* w = weights;
    float_tile* to = o + std::size_t{n} * stride;
    for (std::uint32_t h = 0; h + 1 < heads; h += 2) {  // the sums of one tile wait, two do not
      INSTINFER_ADD_VALUES(0)
      INSTINFER_ADD_VALUES(1)
    }
    if (heads % 2 != 0) {
      INSTINFER_ADD_VALUES(0)
    }
  }
#undef INSTINFER_ADD_VALUES
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();

#endif
