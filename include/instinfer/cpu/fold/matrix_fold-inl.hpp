#pragma once
// The fold of many query heads over rows of bf16 by matrix tiles (AMX), in the precision of fp32.
// A value of q, and a weight, goes in as the sum of three values in bf16, which have its 24 bits.
// Each is multiplied by itself, so no product is rounded.

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <span>
#include <vector>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/cpu/fold/group_state.hpp"
#include "instinfer/cpu/fold/matrix_products-inl.hpp"
#include "instinfer/cpu/fold/plan_parts-inl.hpp"
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
  static constexpr std::uint32_t k_dim = Format::k_dim;
  static constexpr std::uint32_t v_dim = Format::v_dim;
  // Rows of a step: sums of outputs are loaded and stored once a step.
  static constexpr std::uint32_t step_rows = key_tiles * matrix_rows;
  static constexpr std::size_t merge_rows = 1024;  // as row_fold
  static constexpr std::uint32_t shift = weight_shift(merge_rows);

  // As row_fold::fold.
  template <class Pages>
  void fold(const attention::query_group& q, std::span<const float> scaled_q,
            const access_plan& plan, std::size_t first, std::size_t last, const Pages& pages,
            group_state& to, std::uint32_t first_head) {
    const matrix_registers registers;
    soft_cap_ = q.logits.soft_cap;
    bias_ = q.bias ? &q.bias : nullptr;
    group_ = q.group;
    split_queries<k_dim>(scaled_q, q_);
    reset();
    const auto ahead = pages.ahead(
        plan, first, last, [&] { return reads_in_use(plan, first, last, step_rows + block_rows); });
    k_cursor_.begin(false, first, last, q.bias ? pages.tile_tokens(stream::k_by_token) : 0);
    v_cursor_.begin(true, first, last);
    std::size_t unmerged = 0;
    while (take(plan, ahead)) {
      fold_step();
      unmerged += step_rows;
      if (unmerged == merge_rows) {
        merge_into(to, first_head);
        reset();
        unmerged = 0;
      }
    }
    merge_into(to, first_head);
  }

 private:
  static constexpr float lowest = -std::numeric_limits<float>::infinity();
  static constexpr std::uint32_t blocks = step_rows / block_rows;
  static constexpr std::uint32_t k_tiles = k_dim / 32;
  static constexpr std::uint32_t v_tiles = v_dim / matrix_rows;
  using cursor = row_cursor<typename Format::storage, block_rows, T.scattered>;

  void reset() {
    const std::uint32_t head_tiles = (group_ + matrix_rows - 1) / matrix_rows;
    max_.assign(std::size_t{head_tiles} * lanes, lowest);
    sum_.assign(std::size_t{head_tiles} * lanes, 0.0f);
    o_.assign(std::size_t{head_tiles} * v_tiles, {});
  }

  // The rows of the next step. False at the end.
  template <class Pages>
  bool take(const access_plan& plan, const Pages& pages) {
    count_ = 0;
    for (auto& block : k_) {
      k_cursor_.take(plan, pages, block);
      count_ += block.count;
    }
    for (auto& block : v_) {
      v_cursor_.take(plan, pages, block);
    }
    return count_ > 0;
  }

  HWY_NOINLINE void fold_step() {
    copy_uneven_keys();
    pair_values();
    for (std::uint32_t h = 0; h < group_; h += matrix_rows) {
      before_tile_loads();
      multiply_keys<k_dim>(key_tiles_, q_.data() + h / matrix_rows * k_tiles * float_parts,
                           products_);
      weigh(h);
      before_tile_loads();
      add_values<v_dim>(weights_, v_pairs_.data(), o_.data() + h / matrix_rows * v_tiles);
    }
  }

  // Where each tile of K begins, and how far its rows are apart. Missing blocks repeat the first;
  // their weights are 0.
  void copy_uneven_keys() {
    for (std::uint32_t i = 0; i < blocks; ++i) {
      const auto& block = k_[i].count > 0 ? k_[i] : k_[0];
      if (block.stride > 0) {
        key_tiles_[i] = {block.rows[0], block.stride * sizeof(bf16)};
        continue;
      }
      copies_.resize(std::size_t{blocks} * k_tiles);
      bf16* to = copies_[std::size_t{i} * k_tiles].values[0];
      key_tiles_[i] = {to, k_dim * sizeof(bf16)};
      for (const bf16* row : block.rows) {
        to = std::copy_n(row, k_dim, to);
      }
    }
  }

  // V as right operands: pairs of rows by dims.
  void pair_values() {
    const hn::Rebind<std::uint16_t, float_tag> halves;
    const hn::RebindToUnsigned<float_tag> words;
    for (std::uint32_t i = 0; i < blocks; ++i) {
      const auto& block = v_[i].count > 0 ? v_[i] : v_[0];
      for (std::uint32_t t = 0; t < block_rows; t += 2) {
        const std::uint32_t pair = i * block_rows / 2 + t / 2;
        bf16_tile* to = v_pairs_.data() + pair / matrix_rows * v_tiles;
        prefetch_next(i, t);
        for (std::uint32_t n = 0; n < v_tiles; ++n) {
          const auto even = hn::LoadU(halves, &block.rows[t][n * matrix_rows].bits);
          const auto odd = hn::LoadU(halves, &block.rows[t + 1][n * matrix_rows].bits);
          hn::Store(
              hn::Or(hn::PromoteTo(words, even), hn::ShiftLeft<16>(hn::PromoteTo(words, odd))),
              words, reinterpret_cast<std::uint32_t*>(to[n].values[pair % matrix_rows]));
        }
      }
    }
  }

  // Rows that lie evenly go on so; others are prefetched when they are taken.
  void prefetch_next(std::uint32_t i, std::uint32_t t) const {
    if (k_[i].stride > 0) {
      prefetch(k_[i].rows[0] + (step_rows + t) * k_[i].stride, 2 * k_dim * sizeof(bf16));
    }
    if (v_[i].stride > 0 && v_cursor_.shares() != sharing::entries) {
      prefetch(v_[i].rows[0] + (step_rows + t) * v_[i].stride, 2 * v_dim * sizeof(bf16));
    }
  }

  // Turns the products of 16 heads into the parts of weights 2^-shift exp(logit - max), and
  // rescales the state if a maximum rises. Lane i is head i.
  HWY_NOINLINE void weigh(std::uint32_t h) {
    const float_tag f;
    const hn::RebindToUnsigned<float_tag> words;
    float* x = &products_[0].values[0][0];
    float_vec highest = scale_logits_by_lane(x, step_rows * lanes, 1.0f, soft_cap_);
    if (bias_ != nullptr) {
      highest = add_bias(h, x);
    }
    std::fill(x + std::size_t{count_} * lanes, x + step_rows * lanes, lowest);
    float_vec max = hn::LoadU(f, max_.data() + h);
    float_vec sum = hn::LoadU(f, sum_.data() + h);
    if (!hn::AllFalse(f, hn::Gt(highest, max))) {
      const float_vec raised = hn::Max(max, highest);
      HWY_ALIGN float keep[lanes];
      hn::Store(exp_of_negative(hn::Sub(max, raised)), f, keep);
      sum = hn::Mul(sum, hn::Load(f, keep));
      for (std::uint32_t n = 0; n < v_tiles; ++n) {
        float_tile& o = o_[h / matrix_rows * v_tiles + n];
        for (std::uint32_t i = 0; i < matrix_rows; ++i) {
          hn::Store(hn::Mul(hn::Load(f, o.values[i]), hn::Set(f, keep[i])), f, o.values[i]);
        }
      }
      max = raised;
      hn::StoreU(max, f, max_.data() + h);
    }
    for (std::uint32_t s = 0; s < value_steps; ++s) {
      alignas(64) std::uint32_t pairs[float_parts][matrix_rows][matrix_rows];  // [part, rows, head]
      for (std::uint32_t i = 0; i < matrix_rows; ++i) {
        const float* row = x + (s * 32 + 2 * i) * lanes;
        float_vec even = exp_of_negative(hn::Sub(hn::Load(f, row), max), shift);
        float_vec odd = exp_of_negative(hn::Sub(hn::Load(f, row + lanes), max), shift);
        sum = hn::Add(sum, hn::Add(even, odd));
        for (auto& part : pairs) {
          const auto even_half = hn::And(hn::BitCast(words, even), hn::Set(words, 0xFFFF0000u));
          const auto odd_half = hn::And(hn::BitCast(words, odd), hn::Set(words, 0xFFFF0000u));
          hn::Store(hn::Or(hn::ShiftRight<16>(even_half), odd_half), words, part[i]);
          even = hn::Sub(even, hn::BitCast(f, even_half));
          odd = hn::Sub(odd, hn::BitCast(f, odd_half));
        }
      }
      for (std::uint32_t part = 0; part < float_parts; ++part) {
        transpose(pairs[part], weights_[s * float_parts + part]);
      }
    }
    hn::StoreU(sum, f, sum_.data() + h);
  }

  // Adds the biases to the logits x[row, head]; returns the largest of each head.
  HWY_NOINLINE float_vec add_bias(std::uint32_t h, float* x) {
    float_vec max = hn::Set(float_tag{}, lowest);
    const std::uint32_t heads = std::min(group_ - h, matrix_rows);
    for (std::uint32_t i = 0; i < heads; ++i) {
      const row_bias bias = bias_->row(h + i);
      for (std::uint32_t t = 0; t < count_; ++t) {
        float& logit = x[t * lanes + i];
        logit = bias.added_to(logit, k_[t / block_rows].tokens[t % block_rows]);
      }
    }
    for (std::uint32_t t = 0; t < count_; ++t) {
      max = hn::Max(max, hn::Load(float_tag{}, x + t * lanes));
    }
    return max;
  }

  void merge_into(group_state& to, std::uint32_t first_head) {
    std::array<float, v_dim> sums;
    for (std::uint32_t h = 0; h < group_; ++h) {
      for (std::uint32_t n = 0; n < v_tiles; ++n) {
        std::copy_n(o_[h / matrix_rows * v_tiles + n].values[h % matrix_rows], matrix_rows,
                    sums.begin() + n * matrix_rows);
      }
      to.merge_sums(first_head + h, {max_[h], sum_[h]}, sums, shift);
    }
  }

  std::uint32_t group_ = 0;
  float soft_cap_ = 0.0f;
  const logit_bias* bias_ = nullptr;
  cursor k_cursor_;
  cursor v_cursor_;
  std::array<typename cursor::block, blocks> k_;  // of this step
  std::array<typename cursor::block, blocks> v_;
  std::uint32_t count_ = 0;
  std::array<tile_of_rows, blocks> key_tiles_{};
  std::vector<bf16_tile> copies_;  // rows [step_rows, k_dim] that do not lie evenly
  std::vector<bf16_tile> q_;       // [heads / 16, k_dim / 32, part]
  // [32 rows, v_dim / 16]
  std::vector<bf16_tile> v_pairs_ = std::vector<bf16_tile>(value_steps * v_tiles);
  std::array<float_tile, blocks> products_;                   // of 16 heads
  std::array<bf16_tile, value_steps * float_parts> weights_;  // [32 rows, part]
  std::vector<float_tile> o_;                                 // [heads / 16, v_dim / 16]
  std::vector<float> max_;                                    // [heads]
  std::vector<float> sum_;                                    // [heads]
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();

#endif
