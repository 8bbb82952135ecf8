#pragma once
// The fold of many query heads over rows of bf16, or of codes that bf16 has room for, by matrix
// tiles (AMX). A value of q, and a weight, goes in as a sum of values in bf16. Three of them have
// its 24 bits and no product is rounded, so results are as exact as those of fp32;
// tuning::matrix_parts chooses fewer.

#include <algorithm>
#include <array>
#include <limits>
#include <span>
#include <vector>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/cpu/fold/group_state.hpp"
#include "instinfer/cpu/fold/matrix_products-inl.hpp"
#include "instinfer/cpu/fold/plan_parts-inl.hpp"
#include "instinfer/cpu/fold/row_kernels-inl.hpp"
#include "instinfer/cpu/fold/row_tiles-inl.hpp"
#include "instinfer/cpu/fold/row_window-inl.hpp"
#include "instinfer/cpu/softmax-inl.hpp"

#if INSTINFER_MATRIX_TILES

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

template <class Format, tuning T>
class matrix_fold {
  static constexpr std::uint32_t block_rows = matrix_rows;

 public:
  using packed = typename Format::packed;
  static constexpr bool scaled = Format::codec::scale_bytes > 0;
  static constexpr std::uint32_t k_dim = Format::k_dim;
  static constexpr std::uint32_t v_dim = Format::v_dim;
  // Rows of a step: sums of outputs are loaded and stored once a step.
  static constexpr std::uint32_t step_rows = value_tiles * 32;
  static_assert(rows_of_sum % step_rows == 0);
  static constexpr std::uint32_t shift = weight_shift(rows_of_sum);

  // As row_fold::fold.
  template <class Pages>
  void fold(const attention::query_group& q, std::span<const float> scaled_q,
            const access_plan& plan, std::size_t first, std::size_t last, const Pages& pages,
            group_state& to, std::uint32_t first_head) {
    const matrix_registers registers;
    soft_cap_ = q.logits.soft_cap;
    bias_ = q.bias ? &q.bias : nullptr;
    group_ = q.group;
    head_tiles_ = (group_ + matrix_rows - 1) / matrix_rows;
    split_queries<k_dim, parts>(scaled_q, q_);
    max_.assign(std::size_t{head_tiles_} * lanes, lowest);
    products_.resize(std::size_t{head_tiles_} * blocks);
    weights_.resize(std::size_t{head_tiles_} * parts * value_tiles);
    reset();
    const auto ahead = pages.ahead(plan, first, last, [&] {
      return reads_in_use(plan, first, last, 2 * step_rows + block_rows);
    });
    k_cursor_.begin(false, first, last, q.bias ? pages.tile_tokens(stream::k_by_token) : 0);
    v_cursor_.begin(true, first, last);
    std::size_t unmerged = 0;
    step* now = &steps_[0];
    step* next = &steps_[1];
    take(plan, ahead, *now);
    while (now->count > 0) {
      take(plan, ahead, *next);
      prefetch_rows(*next);
      fold_step(*now);
      std::swap(now, next);
      unmerged += step_rows;
      if (unmerged == rows_of_sum) {
        merge_into(to, first_head);
        reset();
        unmerged = 0;
      }
    }
    merge_into(to, first_head);
  }

 private:
  static constexpr float lowest = -std::numeric_limits<float>::infinity();
  static constexpr std::uint32_t parts = T.matrix_parts;
  static constexpr std::uint32_t blocks = step_rows / block_rows;
  static constexpr std::uint32_t k_tiles = k_dim / 32;
  static constexpr std::uint32_t v_tiles = v_dim / matrix_rows;
  // What stays in L1 (48 KB): 64 rows of this many tiles of K; the weights of this many tiles of
  // heads, 4 KB for each part.
  static constexpr std::uint32_t k_tiles_at_once = std::min(k_tiles, 9u);
  static constexpr std::uint32_t head_tiles_at_once = std::array{6u, 4u, 2u}[parts - 1];
  using cursor = row_cursor<typename Format::storage, block_rows, cache_level::none>;
  struct step {
    std::array<typename cursor::block, blocks> k;
    std::array<typename cursor::block, blocks> v;
    std::uint32_t count = 0;
  };

  // Maxima stay: sums are rescaled once for each that rises, not again after each merge.
  void reset() {
    sum_.assign(std::size_t{head_tiles_} * lanes, 0.0f);
    o_.assign(std::size_t{head_tiles_} * v_tiles, {});
  }

  // The rows of a step; none at the end.
  template <class Pages>
  void take(const access_plan& plan, const Pages& pages, step& to) {
    to.count = 0;
    for (auto& block : to.k) {
      k_cursor_.take(plan, pages, block);
      to.count += block.count;
    }
    for (auto& block : to.v) {
      v_cursor_.take(plan, pages, block);
    }
  }

  template <std::uint32_t Dims>
  static std::span<const std::byte> bytes_of(const packed* row) {
    return {reinterpret_cast<const std::byte*>(row), row_bytes<Dims, packed>};
  }
  // The rows come while the step before them is folded.
  void prefetch_rows(const step& next) {
    ahead_.clear();
    const bool apart = v_cursor_.shares() != sharing::entries;
    for (std::uint32_t i = 0; i < blocks; ++i) {
      for (std::uint32_t t = 0; t < next.k[i].count; ++t) {
        ahead_.add(bytes_of<k_dim>(next.k[i].rows[t]));
      }
      for (std::uint32_t t = 0; apart && t < next.v[i].count; ++t) {
        ahead_.add(bytes_of<v_dim>(next.v[i].rows[t]));
      }
    }
    ahead_.spread_over(std::size_t{head_tiles_} * (2 * k_tiles + v_tiles + step_rows / 2));
  }

  HWY_NOINLINE void fold_step(const step& rows) {
    for (std::uint32_t b = 0; b < blocks && rows.k[b].count > 0; b += key_tiles) {
      for (std::uint32_t d = 0; d < k_tiles; d += k_tiles_at_once) {
        const std::uint32_t tiles = std::min(k_tiles_at_once, k_tiles - d);
        copy_keys(rows, b, d, tiles);
        before_tile_loads();
        for (std::uint32_t h = 0; h < head_tiles_; ++h) {
          multiply_keys<parts>(keys_.data(), q_.data() + (std::size_t{h} * k_tiles + d) * parts,
                               tiles, d > 0, products_.data() + std::size_t{h} * blocks + b,
                               ahead_);
        }
      }
    }
    pair_values(rows);
    for (std::uint32_t h = 0; h < head_tiles_; ++h) {
      weigh(rows, h);
    }
    before_tile_loads();
    for (std::uint32_t h = 0; h < head_tiles_; h += head_tiles_at_once) {
      add_values<v_dim, parts>(weights_.data() + std::size_t{h} * parts * value_tiles,
                               std::min(head_tiles_at_once, head_tiles_ - h), v_pairs_.data(),
                               o_.data() + h, head_tiles_, ahead_);
    }
  }

  // Tiles [first, first + tiles) of the dims of K, of the key_tiles blocks from first_block on.
  // Missing blocks repeat block 0; their weights are 0.
  HWY_NOINLINE void copy_keys(const step& rows, std::uint32_t first_block, std::uint32_t first,
                              std::uint32_t tiles) {
    for (std::uint32_t i = 0; i < key_tiles; ++i) {
      const auto& block = rows.k[rows.k[first_block + i].count > 0 ? first_block + i : 0];
      rows_by_dims<packed>(block.rows, first, tiles, keys_.data() + i, key_tiles);
    }
  }

  HWY_NOINLINE void pair_values(const step& rows) {
    for (std::uint32_t i = 0; i < blocks; ++i) {
      const auto& block = rows.v[i].count > 0 ? rows.v[i] : rows.v[0];
      for (std::uint32_t t = 0; t < block_rows; t += 2) {
        const std::uint32_t pair = (i * block_rows + t) / 2;
        pair_of_rows(block.rows[t], block.rows[t + 1], v_tiles, pair % matrix_rows,
                     v_pairs_.data() + pair / matrix_rows * v_tiles);
      }
    }
  }

  // Turns the products of a tile of heads into the parts of weights 2^-shift exp(logit - max), and
  // rescales the state if a maximum rises. Lane i is head i.
  HWY_NOINLINE void weigh(const step& rows, std::uint32_t tile) {
    const float_tag f;
    float* x = &products_[std::size_t{tile} * blocks].values[0][0];
    float* max_at = max_.data() + std::size_t{tile} * lanes;
    float* sum_at = sum_.data() + std::size_t{tile} * lanes;
    const std::size_t all = std::size_t{rows.count} * lanes;
    if constexpr (scaled) {
      for (std::uint32_t t = 0; t < rows.count; ++t) {
        multiply(x + std::size_t{t} * lanes, lanes, scale_of(rows.k, t));
      }
    }
    float_vec highest = scale_logits_by_lane(x, all, 1.0f, soft_cap_);
    if (bias_ != nullptr) {
      highest = add_bias(rows, tile * matrix_rows, x);
    }
    std::fill(x + all, x + step_rows * lanes, lowest);
    float_vec max = hn::LoadU(f, max_at);
    float_vec sum = hn::LoadU(f, sum_at);
    if (!hn::AllFalse(f, hn::Gt(highest, max))) {
      const float_vec raised = hn::Max(max, highest);
      HWY_ALIGN float keep[lanes];
      hn::Store(exp_of_negative(hn::Sub(max, raised)), f, keep);
      sum = hn::Mul(sum, hn::Load(f, keep));
      for (std::uint32_t n = 0; n < v_tiles; ++n) {
        float_tile& o = o_[std::size_t{n} * head_tiles_ + tile];
        for (std::uint32_t i = 0; i < matrix_rows; ++i) {
          hn::Store(hn::Mul(hn::Load(f, o.values[i]), hn::Set(f, keep[i])), f, o.values[i]);
        }
      }
      max = raised;
      hn::StoreU(max, f, max_at);
    }
    bf16_tile* to = weights_.data() + std::size_t{tile} * parts * value_tiles;
    for (std::uint32_t v = 0; v < value_tiles; ++v) {
      alignas(64) std::uint32_t pairs[parts][matrix_rows][matrix_rows];  // [part, rows, head]
      for (std::uint32_t i = 0; i < matrix_rows; ++i) {
        ahead_.some();
        const std::uint32_t t = v * 32 + 2 * i;
        const float* row = x + std::size_t{t} * lanes;
        float_vec even = exp_of_negative(hn::Sub(hn::Load(f, row), max), shift);
        float_vec odd = exp_of_negative(hn::Sub(hn::Load(f, row + lanes), max), shift);
        sum = hn::Add(sum, hn::Add(even, odd));
        if constexpr (scaled) {
          even = hn::Mul(even, hn::Set(f, scale_of(rows.v, t)));
          odd = hn::Mul(odd, hn::Set(f, scale_of(rows.v, t + 1)));
        }
        bf16_parts<parts>::pair(even, odd, pairs[0][i], matrix_rows * matrix_rows);
      }
      for (std::uint32_t part = 0; part < parts; ++part) {
        transpose(pairs[part], to[part * value_tiles + v]);
      }
    }
    hn::StoreU(sum, f, sum_at);
  }

  using blocks_of_rows = std::array<typename cursor::block, blocks>;
  static float scale_of(const blocks_of_rows& rows, std::uint32_t t) {
    return rows[t / block_rows].scales[t % block_rows];
  }

  HWY_NOINLINE float_vec add_bias(const step& rows, std::uint32_t first_head, float* x) {
    const std::uint32_t heads = std::min(group_ - first_head, matrix_rows);
    float_vec max = hn::Set(float_tag{}, lowest);
    for (std::uint32_t b = 0; b < blocks; ++b) {
      const auto tokens = std::span(rows.k[b].tokens).first(rows.k[b].count);
      float* logits = x + std::size_t{b} * block_rows * lanes;
      max = hn::Max(max,
                    add_bias_by_lane(*bias_, first_head, heads, tokens, logits, lanes, block_rows));
    }
    return max;
  }

  void merge_into(group_state& to, std::uint32_t first_head) {
    std::array<float, v_dim> sums;
    for (std::uint32_t h = 0; h < group_; ++h) {
      for (std::uint32_t n = 0; n < v_tiles; ++n) {
        const float_tile& o = o_[std::size_t{n} * head_tiles_ + h / matrix_rows];
        std::copy_n(o.values[h % matrix_rows], matrix_rows, sums.begin() + n * matrix_rows);
      }
      to.merge_sums(first_head + h, {max_[h], sum_[h]}, sums, shift);
    }
  }

  std::uint32_t group_ = 0;
  std::uint32_t head_tiles_ = 0;
  float soft_cap_ = 0.0f;
  const logit_bias* bias_ = nullptr;
  lines_ahead ahead_;
  cursor k_cursor_;
  cursor v_cursor_;
  std::array<step, 2> steps_;                                // this one and the next
  std::array<bf16_tile, k_tiles_at_once * key_tiles> keys_;  // [dims / 32, tile]
  std::vector<bf16_tile> q_;                                 // [head_tiles, k_dim / 32, part]
  // [32 rows, v_dim / 16]
  std::vector<bf16_tile> v_pairs_ = std::vector<bf16_tile>(value_tiles * v_tiles);
  std::vector<float_tile> products_;  // [head_tiles, blocks]
  std::vector<bf16_tile> weights_;    // [head_tiles, part, 32 rows]
  std::vector<float_tile> o_;         // [v_dim / 16, head_tiles]
  std::vector<float> max_;            // [heads]
  std::vector<float> sum_;            // [heads]
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();

#endif
