#pragma once
// The kernels over rows of K and V: scores of a block of rows for a block of query heads, and their
// weighted sum.
// Sums stay in registers.

#include <algorithm>

#include "instinfer/cpu/fold/row_window-inl.hpp"
#include "instinfer/cpu/head_blocks-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Lanes of a block of heads in a vector of scores: lane i belongs to head i % slots.
template <std::uint32_t Heads>
inline constexpr std::uint32_t slots = std::bit_ceil(Heads);

// Rows at even distances in memory: adjacent ones, or those of K or V in fused rows. Addresses are
// computed from the first row, so loads do not wait for a pointer: 0.96 of the read bandwidth,
// against 0.86 with pointers.
template <class Packed>
struct even_rows {
  const Packed* first;
  std::size_t stride;
  HWY_INLINE const Packed* operator[](std::size_t t) const { return first + t * stride; }
  HWY_INLINE even_rows operator+(std::size_t t) const { return {first + t * stride, stride}; }
};

// Rows of K with scales of their dims.
template <std::uint32_t Dims, class Packed, class Rows>
struct dim_scaled_rows {
  Rows rows;
  const bf16* const* scales;
  HWY_INLINE dim_scaled_row<Dims, Packed> operator[](std::size_t t) const {
    return {rows[t], scales[t]};
  }
  HWY_INLINE dim_scaled_rows operator+(std::size_t t) const { return {rows + t, scales + t}; }
};

template <std::uint32_t Dims, class Packed>
inline constexpr std::uint32_t row_bytes = Dims * sizeof(Packed) / packed_elements<Packed>;

// Prefetches part `part` of Parts of row t of those ahead, which has Dims elements.
template <std::uint32_t Dims, std::uint32_t Parts, class Packed, std::uint32_t Rows, cache_level To>
HWY_INLINE void prefetch_row(rows_ahead<Packed, Rows, To> ahead, std::size_t t,
                             std::uint32_t part) {
  constexpr std::uint32_t lines = (row_bytes<Dims, Packed> + line_bytes - 1) / line_bytes;
  const auto* bytes = reinterpret_cast<const std::byte*>(ahead[t]);
  if constexpr (lines % Parts == 0) {  // this case or the next is usual; both have no loop
    constexpr std::uint32_t part_bytes = lines / Parts * line_bytes;
    prefetch<To>(bytes + part * part_bytes, part_bytes);
  } else if constexpr (Parts % lines == 0) {
    if (part % (Parts / lines) == 0) {
      prefetch<To>(bytes + part / (Parts / lines) * line_bytes);
    }
  } else {
    for (std::uint32_t line = lines * part / Parts; line < lines * (part + 1) / Parts; ++line) {
      prefetch<To>(bytes + line * line_bytes);
    }
  }
}

// Lane j * slots + h of the result is q_h . rows[j], for lanes / slots rows of Dims contiguous
// elements. q [Heads, Dims]. Sums stay in a register tile; one tree adds them across. Prefetches
// the rows `ahead` at the same time.
template <std::uint32_t Heads, std::uint32_t Dims, class Rows, class Ahead>
HWY_INLINE float_vec score_rows(Rows rows, const float* q, Ahead ahead) {
  constexpr std::uint32_t tile_rows = lanes / slots<Heads>;
  constexpr std::uint32_t steps = Dims / lanes;
  stored_vec tile[lanes];
  for (std::uint32_t i = 0; i < lanes && slots<Heads> > Heads; ++i) {
    tile[i] = hn::Zero(float_tag{});
  }
  if constexpr (Heads == 1) {  // one row after the other, as in memory; q stays in registers
    HWY_UNROLL(16)
    for (std::uint32_t j = 0; j < tile_rows; ++j) {
      if (ahead) {
        prefetch_row<Dims, 1>(ahead, j, 0);
      }
      HWY_UNROLL(16)
      for (std::uint32_t i = 0; i < Dims; i += lanes) {
        const float_vec k = load_at(rows[j], i);
        const float_vec query = hn::LoadU(float_tag{}, q + i);
        tile[j] = i == 0 ? hn::Mul(k, query) : hn::MulAdd(k, query, tile[j]);
      }
    }
  } else {
    // A few dims of all rows: K vectors are converted once, q vectors are loaded once per tile.
    HWY_UNROLL(4)
    for (std::uint32_t step = 0; step < steps; ++step) {
      for (std::uint32_t j = 0; j < tile_rows && ahead; ++j) {
        prefetch_row<Dims, steps>(ahead, j, step);
      }
      const std::uint32_t i = step * lanes;
      stored_vec query[Heads];
      HWY_UNROLL(8)
      for (std::uint32_t h = 0; h < Heads; ++h) {
        query[h] = hn::LoadU(float_tag{}, q + h * Dims + i);
      }
      HWY_UNROLL(16)
      for (std::uint32_t j = 0; j < tile_rows; ++j) {
        const float_vec k = load_at(rows[j], i);
        HWY_UNROLL(8)
        for (std::uint32_t h = 0; h < Heads; ++h) {
          stored_vec& to = tile[j * slots<Heads> + h];
          to = step == 0 ? hn::Mul(k, query[h]) : hn::MulAdd(k, query[h], to);
        }
      }
    }
  }
  return sum_each(tile);
}

// The largest divisor of n up to `most`.
constexpr std::uint32_t largest_divisor(std::uint32_t n, std::uint32_t most) {
  while (n % most != 0) {
    --most;
  }
  return most;
}

// o[h, i] += sum over t < count of weights[t * slots + h] * rows[t][i], for rows of Dims contiguous
// elements. The sums of Heads x `vectors` vectors stay in registers for all rows. Prefetches the
// rows `ahead` at the same time.
template <std::uint32_t Heads, std::uint32_t Dims, class Rows, class Ahead>
HWY_INLINE void accumulate_rows(Rows rows, std::size_t count, const float* weights, float* o,
                                Ahead ahead) {
  constexpr std::uint32_t in_row = Dims / lanes;
  constexpr std::uint32_t fitting = std::min(in_row, std::bit_floor(register_budget / Heads));
  constexpr std::uint32_t vectors = largest_divisor(in_row, fitting);
  constexpr std::uint32_t parts = in_row / vectors;
  for (std::uint32_t part = 0; part < parts; ++part) {
    const std::uint32_t first = part * vectors * lanes;
    stored_vec acc[Heads * vectors];
    HWY_UNROLL(8)
    for (std::uint32_t h = 0; h < Heads; ++h) {
      HWY_UNROLL(16)
      for (std::uint32_t j = 0; j < vectors; ++j) {
        acc[h * vectors + j] = hn::LoadU(float_tag{}, o + h * Dims + first + j * lanes);
      }
    }
    for (std::size_t t = 0; t < count; ++t) {
      if (ahead) {
        prefetch_row<Dims, parts>(ahead, t, part);
      }
      const auto row = rows[t];
      HWY_UNROLL(16)
      for (std::uint32_t j = 0; j < vectors; ++j) {
        const float_vec v = load_at(row, first + j * lanes);
        HWY_UNROLL(8)
        for (std::uint32_t h = 0; h < Heads; ++h) {
          acc[h * vectors + j] = hn::MulAdd(v, hn::Set(float_tag{}, weights[t * slots<Heads> + h]),
                                            acc[h * vectors + j]);
        }
      }
    }
    HWY_UNROLL(8)
    for (std::uint32_t h = 0; h < Heads; ++h) {
      HWY_UNROLL(16)
      for (std::uint32_t j = 0; j < vectors; ++j) {
        hn::StoreU(acc[h * vectors + j], float_tag{}, o + h * Dims + first + j * lanes);
      }
    }
  }
}

// score_rows of one head for a block of rows, combined row by row with accumulate_rows of other
// rows. Both streams advance evenly, and neither waits for the other's sums. Used if the sums of 16
// rows and one row of outputs fit in registers.
template <std::uint32_t KDim, std::uint32_t VDim>
inline constexpr bool rows_interleave = lanes == 16 && VDim / lanes <= 8;

template <std::uint32_t KDim, std::uint32_t VDim, class KRows, class VRows, class Ahead>
HWY_INLINE float_vec score_and_accumulate(KRows k, const float* q, VRows v, const float* weights,
                                          float* o, Ahead k_ahead, Ahead v_ahead) {
  constexpr std::uint32_t vectors = VDim / lanes;
  stored_vec tile[lanes];
  stored_vec acc[vectors];
  HWY_UNROLL(8)
  for (std::uint32_t i = 0; i < vectors; ++i) {
    acc[i] = hn::LoadU(float_tag{}, o + i * lanes);
  }
  HWY_UNROLL(16)
  for (std::uint32_t j = 0; j < lanes; ++j) {
    if (k_ahead) {
      prefetch_row<KDim, 1>(k_ahead, j, 0);
    }
    if (v_ahead) {
      prefetch_row<VDim, 1>(v_ahead, j, 0);
    }
    HWY_UNROLL(16)
    for (std::uint32_t i = 0; i < KDim; i += lanes) {
      const float_vec x = load_at(k[j], i);
      const float_vec query = hn::LoadU(float_tag{}, q + i);
      tile[j] = i == 0 ? hn::Mul(x, query) : hn::MulAdd(x, query, tile[j]);
    }
    const float_vec weight = hn::Set(float_tag{}, weights[j]);
    HWY_UNROLL(8)
    for (std::uint32_t i = 0; i < vectors; ++i) {
      acc[i] = hn::MulAdd(load_at(v[j], i * lanes), weight, acc[i]);
    }
  }
  HWY_UNROLL(8)
  for (std::uint32_t i = 0; i < vectors; ++i) {
    hn::StoreU(acc[i], float_tag{}, o + i * lanes);
  }
  return sum_each(tile);
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
