#pragma once
// The fold kernel of the CPU path: K and V rows stream by once for all query heads of a group, block by block, into an
// online softmax. There is no array of scores: those of a block live on the stack.

#include <algorithm>
#include <vector>

#include "instinfer/cpu/group_state.hpp"
#include "instinfer/cpu/head_blocks-inl.hpp"
#include "instinfer/cpu/row_window-inl.hpp"
#include "instinfer/cpu/softmax-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Lanes that a block of heads takes in a vector of scores: lane i belongs to head i % slots.
template <std::uint32_t Heads>
inline constexpr std::uint32_t slots = std::bit_ceil(Heads);

// Rows of Dims elements that lie one after the other. Their addresses follow from the first one, so that loads need not wait
// for a pointer: 0.96 of the read bandwidth, against 0.86 by pointers.
template <std::uint32_t Dims, class Unit>
struct adjacent_rows {
  static constexpr std::size_t stride = Dims / unit_elements<Unit>;
  const Unit* first;
  HWY_INLINE const Unit* operator[](std::size_t t) const { return first + t * stride; }
  HWY_INLINE adjacent_rows operator+(std::size_t t) const { return {first + t * stride}; }
};

template <std::uint32_t Dims, class Unit>
inline constexpr std::uint32_t row_bytes = Dims / unit_elements<Unit> * sizeof(Unit);

// Brings part `part` of `parts` of a row of Dims elements to the cache, while rows of type Rows are worked on.
template <std::uint32_t Dims, class Rows, class Unit>
HWY_INLINE void prefetch_row(const Unit* row, std::uint32_t part, std::uint32_t parts) {
  constexpr std::uint32_t line_bytes = 64;
  constexpr std::uint32_t lines = (row_bytes<Dims, Unit> + line_bytes - 1) / line_bytes;
  const auto* bytes = reinterpret_cast<const std::byte*>(row);
  for (std::uint32_t line = lines * part / parts; line < lines * (part + 1) / parts; ++line) {
    if constexpr (std::is_pointer_v<Rows>) {
      prefetch_to_l1(bytes + line * line_bytes);
    } else {
      prefetch(bytes + line * line_bytes);
    }
  }
}

// Lane j * slots + h of the result is q_h . rows[j], for lanes / slots rows of Dims contiguous elements. q [Heads, Dims].
// Sums stay in a register tile, which one tree sums across. Brings the rows `ahead` to the cache meanwhile.
template <std::uint32_t Heads, std::uint32_t Dims, class Unit, class Rows>
HWY_INLINE float_vec score_rows(Rows rows, const float* q, const Unit* const* ahead) {
  constexpr std::uint32_t tile_rows = lanes / slots<Heads>;
  constexpr std::uint32_t steps = Dims / lanes;
  float_vec tile[lanes];
  for (std::uint32_t i = 0; i < lanes && slots<Heads> > Heads; ++i) {
    tile[i] = hn::Zero(float_tag{});
  }
  if constexpr (Heads == 1) {  // row after row, as they lie in memory: q stays in registers
    HWY_UNROLL(16)
    for (std::uint32_t j = 0; j < tile_rows; ++j) {
      if (ahead != nullptr) {
        prefetch_row<Dims, Rows>(ahead[j], 0, 1);
      }
      HWY_UNROLL(16)
      for (std::uint32_t i = 0; i < Dims; i += lanes) {
        const float_vec k = load_at(rows[j], i);
        const float_vec query = hn::LoadU(float_tag{}, q + i);
        tile[j] = i == 0 ? hn::Mul(k, query) : hn::MulAdd(k, query, tile[j]);
      }
    }
  } else {  // a few dims of all rows: each vector of K is converted once, each of q loaded once a tile
    HWY_UNROLL(4)
    for (std::uint32_t step = 0; step < steps; ++step) {
      for (std::uint32_t j = 0; j < tile_rows && ahead != nullptr; ++j) {
        prefetch_row<Dims, Rows>(ahead[j], step, steps);
      }
      const std::uint32_t i = step * lanes;
      float_vec query[Heads];
      HWY_UNROLL(8)
      for (std::uint32_t h = 0; h < Heads; ++h) {
        query[h] = hn::LoadU(float_tag{}, q + h * Dims + i);
      }
      HWY_UNROLL(16)
      for (std::uint32_t j = 0; j < tile_rows; ++j) {
        const float_vec k = load_at(rows[j], i);
        HWY_UNROLL(8)
        for (std::uint32_t h = 0; h < Heads; ++h) {
          float_vec& to = tile[j * slots<Heads> + h];
          to = step == 0 ? hn::Mul(k, query[h]) : hn::MulAdd(k, query[h], to);
        }
      }
    }
  }
  return sum_each(tile);
}

// o[h, i] += sum over t < count of weights[t * slots + h] * rows[t][i], for rows of Dims contiguous elements. The sums of
// Heads x `vectors` vectors stay in registers over all rows. Brings the rows `ahead` to the cache meanwhile.
template <std::uint32_t Heads, std::uint32_t Dims, class Unit, class Rows>
HWY_INLINE void accumulate_rows(Rows rows, std::size_t count, const float* weights, float* o,
                                const Unit* const* ahead) {
  constexpr std::uint32_t in_row = Dims / lanes;
  constexpr std::uint32_t fitting = std::min(in_row, std::bit_floor(register_budget / Heads));
  constexpr std::uint32_t vectors = in_row % fitting == 0 ? fitting : 1;
  for (std::uint32_t first = 0; first < Dims; first += vectors * lanes) {
    float_vec acc[Heads * vectors];
    HWY_UNROLL(8)
    for (std::uint32_t h = 0; h < Heads; ++h) {
      HWY_UNROLL(16)
      for (std::uint32_t j = 0; j < vectors; ++j) {
        acc[h * vectors + j] = hn::LoadU(float_tag{}, o + h * Dims + first + j * lanes);
      }
    }
    for (std::size_t t = 0; t < count; ++t) {
      if (ahead != nullptr) {
        prefetch_row<Dims, Rows>(ahead[t], first / (vectors * lanes), in_row / vectors);
      }
      const Unit* row = rows[t];
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

template <class Format>
class row_fold {
 public:
  using unit = typename Format::unit;
  static constexpr bool scaled = Format::codec::scale_bytes > 0;
  static constexpr std::uint32_t k_dim = Format::k_dim;
  static constexpr std::uint32_t v_dim = Format::v_dim;

  // Rows that come to the cache ahead of the kernel: 2 KiB where they lie one after the other (1 to 3 KiB are best; with 4 KiB
  // and more the hardware does not follow: 0.8 of the read bandwidth), else the next block.
  template <class Rows, std::uint32_t Dims>
  static constexpr std::uint32_t rows_ahead =
      std::is_pointer_v<Rows>
          ? block_rows
          : std::clamp<std::uint32_t>(2048 / row_bytes<Dims, unit>, 1, block_rows);
  // Sums of so many rows are taken apart, then merged: a sum of 32K terms in fp32 would lose three more bits.
  static constexpr std::size_t merge_rows = 1024;

  // Folds reads [first, last) of the plan into heads [first_head, ...) of `to`. They begin with a K page and end with V
  // pages. q [group, k_dim] times the logits' scale.
  template <class Pages>
  void fold(std::span<const float> q, float soft_cap, const access_plan& plan, std::size_t first,
            std::size_t last, const Pages& pages, group_state& to, std::uint32_t first_head) {
    const auto group = static_cast<std::uint32_t>(q.size() / k_dim);
    reset(group);
    std::size_t unmerged = 0;
    for (window_.begin(plan, first, last, pages); window_.count() > 0;
         window_.advance(plan, pages)) {
      for_head_blocks(group, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
        const float* heads = q.data() + std::size_t{h} * k_dim;
        if (window_.adjacent()) {
          fold_block<Heads>(h, heads, adjacent_rows<k_dim, unit>{*window_.k()},
                            adjacent_rows<v_dim, unit>{*window_.v()}, soft_cap);
        } else {
          fold_block<Heads>(h, heads, window_.k(), window_.v(), soft_cap);
        }
      });
      unmerged += window_.count();
      if (unmerged >= merge_rows) {
        merge_into(to, group, first_head);
        reset(group);
        unmerged = 0;
      }
    }
    merge_into(to, group, first_head);
  }

 private:
  static constexpr float lowest = -std::numeric_limits<float>::infinity();

  // The state of heads [h, h + Heads) at h in each array. max and sum: [lanes], lane i for head i % slots; sums are partial.
  void reset(std::uint32_t group) {
    max_.assign(std::size_t{group} * lanes, lowest);
    sum_.assign(std::size_t{group} * lanes, 0.0f);
    o_.assign(std::size_t{group} * v_dim, 0.0f);
  }

  template <std::uint32_t Heads, class KRows, class VRows>
  HWY_INLINE void fold_block(std::uint32_t h, const float* q, KRows k, VRows v, float soft_cap) {
    constexpr std::uint32_t tile_rows = lanes / slots<Heads>;
    HWY_ALIGN float weights[block_rows * slots<Heads>];  // [row, slot]
    for (std::uint32_t t = 0; t < block_rows; t += tile_rows) {
      const float_vec products = score_rows<Heads, k_dim, unit>(
          k + t, q, h == 0 ? window_.k() + t + rows_ahead<KRows, k_dim> : nullptr);
      hn::Store(products, float_tag{}, weights + t * slots<Heads>);
    }
    if constexpr (scaled) {
      multiply_rows<slots<Heads>>(weights, window_.k_scales());
    }
    weigh<Heads>(h, weights, window_.count(), soft_cap);
    if constexpr (scaled) {
      multiply_rows<slots<Heads>>(weights, window_.v_scales());
    }
    accumulate_rows<Heads, v_dim, unit>(v, window_.count(), weights,
                                        o_.data() + std::size_t{h} * v_dim,
                                        h == 0 ? window_.v() + rows_ahead<VRows, v_dim> : nullptr);
  }

  // x[t, slot] *= scales[t], for the rows of a block.
  template <std::uint32_t Slots>
  static HWY_INLINE void multiply_rows(float* x, const float* scales) {
    HWY_UNROLL(4)
    for (std::uint32_t t = 0; t < block_rows; ++t) {
      for (std::uint32_t slot = 0; slot < Slots; ++slot) {
        x[t * Slots + slot] *= scales[t];
      }
    }
  }

  // Turns products into weights exp(logit - max), and rescales the state where a maximum moves: rarely, after some blocks.
  template <std::uint32_t Heads>
  HWY_INLINE void weigh(std::uint32_t h, float* x, std::size_t count, float soft_cap) {
    constexpr std::size_t all = block_rows * slots<Heads>;
    float* max_at = max_.data() + std::size_t{h} * lanes;
    float* sum_at = sum_.data() + std::size_t{h} * lanes;
    const float_vec block_max = scale_logits_by_lane(x, all, 1.0f, soft_cap);
    // In the last block, rows that are repeated weigh nothing. They do not move the maximum: it has them once already.
    std::fill(x + count * slots<Heads>, x + all, lowest);
    float_vec max = hn::LoadU(float_tag{}, max_at);
    float_vec sum = hn::LoadU(float_tag{}, sum_at);
    if (!hn::AllFalse(float_tag{}, hn::Gt(block_max, max))) {
      const float_vec raised = hn::Max(max, max_by_slot<slots<Heads>>(block_max));
      HWY_ALIGN float keep[lanes];  // exp(-inf) is 0: an empty state
      hn::Store(hn::Exp(float_tag{}, hn::Sub(max, raised)), float_tag{}, keep);
      sum = hn::Mul(sum, hn::Load(float_tag{}, keep));
      for (std::uint32_t i = 0; i < Heads; ++i) {
        multiply(o_.data() + std::size_t{h + i} * v_dim, v_dim, keep[i]);
      }
      max = raised;
      hn::StoreU(max, float_tag{}, max_at);
    }
    for (std::size_t i = 0; i < all; i += lanes) {
      const float_vec p = hn::Exp(float_tag{}, hn::Sub(hn::Load(float_tag{}, x + i), max));
      sum = hn::Add(sum, p);
      hn::Store(p, float_tag{}, x + i);
    }
    hn::StoreU(sum, float_tag{}, sum_at);
  }

  void merge_into(group_state& to, std::uint32_t group, std::uint32_t first_head) {
    for_head_blocks(group, [&]<std::uint32_t Heads>(std::uint32_t first) HWY_ATTR {
      for (std::uint32_t i = 0; i < Heads; ++i) {
        const std::size_t at = std::size_t{first} * lanes + i;
        softmax_state<float> state{max_[at], 0.0f};
        for (std::uint32_t lane = 0; lane < lanes; lane += slots<Heads>) {
          state.sum += sum_[at + lane];
        }
        to.merge_head(first_head + first + i, state,
                      std::span(o_).subspan(std::size_t{first + i} * v_dim, v_dim));
      }
    });
  }

  row_window<typename Format::storage> window_;
  std::vector<float> max_;  // [group, lanes]
  std::vector<float> sum_;  // [group, lanes]
  std::vector<float> o_;    // [group, v_dim]
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
