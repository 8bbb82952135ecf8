#pragma once
// The fold kernel of the CPU path: one pass over K and V rows for all query heads of a group.
// Blocks of rows go into an online softmax. There is no array of all scores; those of a block are
// on the stack.

#include <algorithm>
#include <vector>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/cpu/fold/group_state.hpp"
#include "instinfer/cpu/fold/plan_parts-inl.hpp"
#include "instinfer/cpu/fold/row_kernels-inl.hpp"
#include "instinfer/cpu/softmax-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

template <class Format, tuning T = tuning{}>
class row_fold {
  static constexpr std::uint32_t block_rows = T.block_rows;

 public:
  using packed = typename Format::packed;
  static constexpr bool scaled = Format::codec::scale_bytes > 0;
  static constexpr std::uint32_t k_dim = Format::k_dim;
  static constexpr std::uint32_t v_dim = Format::v_dim;

  static_assert(rows_of_sum % block_rows == 0);  // so that no sum has more rows
  static constexpr std::uint32_t shift = weight_shift(rows_of_sum);

  // Folds reads [first, last) of the plan into heads [first_head, ...) of `to`. The reads begin
  // with a K page and end with V pages. scaled_q [group, k_dim]: the values of q times the scale.
  template <class Pages>
  void fold(const attention::query_group& q, std::span<const float> scaled_q,
            const access_plan& plan, std::size_t first, std::size_t last, const Pages& pages,
            group_state& to, std::uint32_t first_head) {
    const std::uint32_t group = q.group;
    soft_cap_ = q.logits.soft_cap;
    bias_ = q.bias ? &q.bias : nullptr;
    reset(group);
    std::size_t unmerged = 0;
    bool pending = false;  // the block before has weights, but its V rows are not folded yet
    const auto ahead = pages.ahead(
        plan, first, last, [&] { return reads_in_use(plan, first, last, window::rows_in_use); });
    for (window_.begin(plan, first, last, ahead,
                       q.bias ? pages.tile_tokens(stream::k_by_token) : 0);
         window_.k().count > 0 || pending; window_.advance(plan, ahead)) {
      fold_blocks(group, scaled_q.data(), pending);
      unmerged += window_.k().count;
      pending = window_.k().count > 0;
      if (unmerged >= rows_of_sum) {
        for_head_blocks<T.heads>(group, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
          fold_values<Heads>(h, window_.v().rows.data(), rows_ahead<packed>{});
        });
        merge_into(to, group, first_head);
        reset(group);
        unmerged = 0;
        pending = false;
      }
    }
    merge_into(to, group, first_head);
  }

 private:
  static constexpr float lowest = -std::numeric_limits<float>::infinity();

  // In rows. Blocks of uneven rows wait for their pointers, so they are treated like a group's.
  template <std::uint32_t Heads, class Rows>
  static constexpr row_prefetch prefetch_of =
      Heads > 1 || std::is_pointer_v<Rows> ? T.group : T.one_head;
  static constexpr std::uint32_t k_distance(const row_prefetch& p) {
    return p.k.in_rows(row_bytes<k_dim, packed>);
  }
  static constexpr std::uint32_t v_distance(const row_prefetch& p) {
    return p.v.in_rows(row_bytes<v_dim, packed>);
  }
  static constexpr std::uint32_t farthest = std::max(
      {k_distance(T.one_head), v_distance(T.one_head), k_distance(T.group), v_distance(T.group)});
  using window = row_window<typename Format::storage, T, (farthest + block_rows - 1) / block_rows>;

  // In each array, the state of heads [h, h + Heads) starts at h. max and sum: [lanes], lane i for
  // head i % slots; sums are partial.
  void reset(std::uint32_t group) {
    max_.assign(std::size_t{group} * lanes, lowest);
    sum_.assign(std::size_t{group} * lanes, 0.0f);
    o_.assign(std::size_t{group} * v_dim, 0.0f);
    weights_.assign((std::size_t{group} + 1) * block_rows, 0.0f);  // 3 heads take 4 slots
  }

  // Folds the current block of K and the block of V before it, for all heads. It is separate from
  // `fold`, so that it is compiled once for all stores and layouts with such rows.
  HWY_NOINLINE void fold_blocks(std::uint32_t group, const float* q, bool pending) {
    const auto& k = window_.k();
    const auto& v = pending ? window_.v_before() : window_.v();  // at first, weights are 0
    using rows = even_rows<packed>;
    const bool even = (k.stride > 0 || k.count == 0) && v.stride > 0;
    for_head_blocks<T.heads>(group, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
      const float* heads = q + std::size_t{h} * k_dim;
      if (even) {
        fold_block<Heads>(h, heads, keys(rows{k.rows[0], k.stride}), rows{v.rows[0], v.stride},
                          pending);
      } else {
        fold_block<Heads>(h, heads, keys(k.rows.data()), v.rows.data(), pending);
      }
    });
  }

  // The rows of the current block of K, with the scales of their dims if they have any.
  template <class Rows>
  HWY_INLINE auto keys(Rows rows) const {
    if constexpr (dim_bytes<typename Format::codec> > 0) {
      return dim_scaled_rows<k_dim, packed, Rows>{rows, window_.k().dims.data()};
    } else {
      return rows;
    }
  }

  // Scores the current block, and folds the values of the block before, whose weights are known by
  // now. Out-of-order processors overlap the softmax of one block with the rows of the other.
  template <std::uint32_t Heads, class KRows, class VRows>
  HWY_INLINE void fold_block(std::uint32_t h, const float* q, KRows k, VRows v_before,
                             bool pending) {
    constexpr std::uint32_t tile_rows = lanes / slots<Heads>;
    HWY_ALIGN float products[block_rows * slots<Heads>];  // [row, slot]
    constexpr row_prefetch prefetches = prefetch_of<Heads, VRows>;
    auto k_ahead = window_.template k_ahead<prefetches.to>(k_distance(prefetches));
    auto v_ahead = window_.template v_ahead<prefetches.to>(v_distance(prefetches));
    if (h > 0) {  // the first block of heads has brought the rows to the cache
      k_ahead.now = nullptr;
    }
    if (h > 0 || !pending) {
      v_ahead.now = nullptr;
    }
    if constexpr (Heads == 1 && T.by_turns && rows_interleave<k_dim, v_dim>) {
      if (window_.k().count > 0) {
        for (std::uint32_t t = 0; t < block_rows; t += lanes) {
          hn::Store(score_and_accumulate<k_dim, v_dim>(k + t, q, v_before + t, weights_of(h) + t,
                                                       o_.data() + std::size_t{h} * v_dim,
                                                       k_ahead.from(t), v_ahead.from(t)),
                    float_tag{}, products + t);
        }
      } else {
        fold_values<Heads>(h, v_before, v_ahead);
      }
    } else {
      for (std::uint32_t t = 0; t < block_rows && window_.k().count > 0; t += tile_rows) {
        hn::Store(score_rows<Heads, k_dim>(k + t, q, k_ahead.from(t)), float_tag{},
                  products + t * slots<Heads>);
      }
      if (pending) {
        fold_values<Heads>(h, v_before, v_ahead);
      }
    }
    if (window_.k().count > 0) {
      weigh<Heads>(h, products);
    }
  }

  // Folds the rows of a block with known weights. Rows after its end have weight 0.
  template <std::uint32_t Heads, class VRows, class Ahead>
  HWY_INLINE void fold_values(std::uint32_t h, VRows v, Ahead ahead) {
    accumulate_rows<Heads, v_dim>(v, block_rows, weights_of(h), o_.data() + std::size_t{h} * v_dim,
                                  ahead);
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

  // Turns the products of the current block into its weights 2^-shift exp(logit - max), and
  // rescales the state if a maximum changes, which is rare after some blocks. The scales of K pages
  // and V pages are applied here, so that they do not wait for the V rows.
  template <std::uint32_t Heads>
  HWY_INLINE void weigh(std::uint32_t h, float* x) {
    constexpr std::size_t all = block_rows * slots<Heads>;
    const std::size_t count = window_.k().count;
    float* weights = weights_of(h);
    if constexpr (scaled) {
      multiply_rows<slots<Heads>>(x, window_.k().scales.data());
    }
    float* max_at = max_.data() + std::size_t{h} * lanes;
    float* sum_at = sum_.data() + std::size_t{h} * lanes;
    float_vec block_max = scale_logits_by_lane(x, all, 1.0f, soft_cap_);
    if (bias_ != nullptr) {
      const auto tokens = std::span(window_.k().tokens).first(count);
      block_max = add_bias_by_lane(*bias_, h, Heads, tokens, x, slots<Heads>, block_rows);
    }
    // In the last block, repeated rows have weight 0. They do not change the maximum, because their
    // first copy counts.
    std::fill(x + count * slots<Heads>, x + all, lowest);
    float_vec max = hn::LoadU(float_tag{}, max_at);
    float_vec sum = hn::LoadU(float_tag{}, sum_at);
    if (!hn::AllFalse(float_tag{}, hn::Gt(block_max, max))) {
      const float_vec raised = hn::Max(max, max_by_slot<slots<Heads>>(block_max));
      HWY_ALIGN float keep[lanes];  // exp(-inf) is 0 for an empty state
      hn::Store(exp_of_negative(hn::Sub(max, raised)), float_tag{}, keep);
      sum = hn::Mul(sum, hn::Load(float_tag{}, keep));
      for (std::uint32_t i = 0; i < Heads; ++i) {
        multiply(o_.data() + std::size_t{h + i} * v_dim, v_dim, keep[i]);
      }
      max = raised;
      hn::StoreU(max, float_tag{}, max_at);
    }
    for (std::size_t i = 0; i < all; i += lanes) {
      const float_vec p = exp_of_negative(hn::Sub(hn::Load(float_tag{}, x + i), max), shift);
      sum = hn::Add(sum, p);
      hn::StoreU(p, float_tag{}, weights + i);
    }
    hn::StoreU(sum, float_tag{}, sum_at);
    if constexpr (scaled) {
      multiply_rows<slots<Heads>>(weights, window_.v().scales.data());
    }
  }

  // [row, slot], for the block of heads that starts at h.
  float* weights_of(std::uint32_t h) { return weights_.data() + std::size_t{h} * block_rows; }

  void merge_into(group_state& to, std::uint32_t group, std::uint32_t first_head) {
    for_head_blocks<T.heads>(group, [&]<std::uint32_t Heads>(std::uint32_t first) {
      merge_block(to, first_head, first, Heads, slots<Heads>);
    });
  }
  HWY_NOINLINE void merge_block(group_state& to, std::uint32_t first_head, std::uint32_t first,
                                std::uint32_t heads, std::uint32_t slots_of_heads) {
    for (std::uint32_t i = 0; i < heads; ++i) {
      const std::size_t at = std::size_t{first} * lanes + i;
      softmax_state<float> state{max_[at], 0.0f};
      for (std::uint32_t lane = 0; lane < lanes; lane += slots_of_heads) {
        state.sum += sum_[at + lane];
      }
      to.merge_sums(first_head + first + i, state,
                    std::span(o_).subspan(std::size_t{first + i} * v_dim, v_dim), shift);
    }
  }

  window window_;
  float soft_cap_ = 0.0f;
  const logit_bias* bias_ = nullptr;  // of the query that is folded; null: none
  std::vector<float> weights_;        // [group + 1, block_rows]: see weights_of
  std::vector<float> max_;            // [group, lanes]
  std::vector<float> sum_;            // [group, lanes]
  std::vector<float> o_;              // [group, v_dim]
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
