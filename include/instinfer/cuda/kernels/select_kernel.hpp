#pragma once
// The second pass of SparQ and SparF on a GPU, one kernel. For every KV head it finds the exact k
// tokens with the largest sums of probabilities (or logits) over the query group. Ties go to the
// lower token. It writes them as an ascending list, and the share of the weight that they have. A
// cluster of CTAs works on one head. Each CTA has a stretch of the tokens, whose keys it keeps in
// shared memory.

#include "instinfer/core/top_k.hpp"
#include "instinfer/cuda/kernels/cluster_top_k.hpp"
#include "instinfer/cuda/launch/sparse_arguments.hpp"

namespace instinfer::cuda {

inline constexpr std::uint32_t select_threads = 256;

template <class Lane, class E, class Code = E>
class select_kernel {
 public:
  using arguments = sparse_arguments<E, Code>;
  using top_k = cluster_top_k<Lane, select_threads>;

  // Bytes of shared memory that hold the keys of `tokens` tokens.
  static constexpr std::uint64_t shared_bytes(std::uint64_t tokens) {
    return 4 * (fixed_words + tokens);
  }
  // The tokens of each of `ctas` CTAs, of a sequence of n tokens.
  static constexpr std::uint32_t stretch_of(std::uint32_t n, std::uint32_t ctas) {
    return ((n + ctas - 1) / ctas + score_segment - 1) / score_segment * score_segment;
  }

  // Shared memory has room for the keys of `shared_tokens` tokens. Longer stretches keep theirs in
  // a.keys.
  constexpr select_kernel(Lane& lane, const arguments& a, std::uint32_t shared_tokens)
      : lane_{lane},
        a_{a},
        item_{lane.block() / lane.cluster_ctas()},
        sequence_{static_cast<std::uint32_t>(item_ / a.sizes.kv_heads)},
        seen_{a.seen(sequence_)},
        base_{a.base(sequence_)},
        span_{a.span(sequence_)} {
    const std::uint32_t stretch = stretch_of(span_, lane.cluster_ctas());
    first_ = lane_.cluster_rank() * stretch;
    const std::uint32_t left = first_ < span_ ? span_ - first_ : 0;
    count_ = left < stretch ? left : stretch;
    keys_ = stretch <= shared_tokens ? words() + fixed_words
                                     : a_.keys + item_ * a_.logit_stride + first_;
  }

  constexpr void run() {
    std::uint32_t k = a_.keep.of(seen_.count);
    std::uint32_t status = a_.fits(sequence_) ? 0 : std::uint32_t{token_beyond_table};
    if (k > a_.list_stride) {
      k = static_cast<std::uint32_t>(a_.list_stride);
      status = token_beyond_table;
    }
    top_k best(lane_, words() + top_k_at, keys_, count_);
    best.prepare();
    sum_weights();
    typename top_k::listed mine;
    if (k > 0) {
      make_keys(a_.keep.local(k));
      lane_.sync_cluster();
      std::uint32_t* list = a_.listed + item_ * a_.list_stride;
      mine = best.list(
          k, [&](std::uint32_t place, std::uint32_t at) { list[place] = base_ + first_ + at; });
      lane_.sync_block();
    }
    sum_kept(mine);
    if (lane_.thread() == 0 && lane_.cluster_rank() == 0) {
      if (item_ % a_.sizes.kv_heads == 0) {
        a_.listed_counts[sequence_] = k;
      }
      if (status != 0) {
        lane_.set_bits(a_.status, status);
      }
    }
  }

 private:
  static constexpr std::uint32_t warps = select_threads / 32;
  // Places in shared memory, in words: log2 of the heads' sums [16], kept shares [16, CTAs of a
  // cluster] and [16, warps].
  static constexpr std::uint32_t shares_at = largest_group;
  static constexpr std::uint32_t of_warps_at = shares_at + largest_group * top_k::most_ctas;
  static constexpr std::uint32_t top_k_at = of_warps_at + largest_group * warps;
  static constexpr std::uint32_t fixed_words = top_k_at + (top_k::words + 3) / 4 * 4;
  static_assert(top_k_at % 4 == 0);

  constexpr std::uint32_t* words() const {
    return reinterpret_cast<std::uint32_t*>(lane_.shared());
  }
  constexpr float* log_sums() const { return reinterpret_cast<float*>(words()); }
  constexpr float* shares() const { return reinterpret_cast<float*>(words() + shares_at); }
  constexpr float* of_warps() const { return reinterpret_cast<float*>(words() + of_warps_at); }
  constexpr std::uint32_t warp() const { return lane_.thread() / 32; }
  constexpr std::uint32_t lane_id() const { return lane_.thread() % 32; }
  constexpr const float* row(std::uint32_t g) const {
    return a_.logits + (item_ * a_.sizes.group + g) * a_.logit_stride;
  }

  // Merges the states of the segments into log2 of each head's sum. One warp works on one head.
  // Every CTA of the cluster does this for itself.
  constexpr void sum_weights() {
    const std::uint32_t segments = (span_ + score_segment - 1) / score_segment;
    const float_pair* states =
        a_.states + item_ * (a_.logit_stride / score_segment) * a_.sizes.group;
    for (std::uint32_t g = warp(); g < a_.sizes.group; g += warps) {
      float_pair sum{-std::numeric_limits<float>::infinity(), 0.0f};
      for (std::uint32_t c = lane_id(); c < segments; c += 32) {
        sum = merged(lane_, sum, states[c * a_.sizes.group + g]);
      }
      for (const std::uint32_t mask : {1u, 2u, 4u, 8u, 16u}) {
        sum = merged(lane_, sum,
                     {lane_.shuffle_xor(sum.max, mask), lane_.shuffle_xor(sum.sum, mask)});
      }
      if (lane_id() == 0) {
        log_sums()[g] = sum.sum > 0.0f ? sum.max + lane_.log2(sum.sum) : 0.0f;
      }
    }
    lane_.sync_block();
  }

  // Makes the keys, for four tokens and four heads at a time. A hidden token gets 0, which is no
  // key; the newest `local` tokens get the largest key.
  constexpr void make_keys(std::uint32_t local) {
    for (std::uint32_t at = 4 * lane_.thread(); at < count_; at += 4 * select_threads) {
      float rank[4] = {};
      for (std::uint32_t g = 0; g < a_.sizes.group; g += 4) {
        float_quad x[4];
        unrolled<4>([&](auto h) {
          const std::uint32_t head = g + h < a_.sizes.group ? g + h : g;
          x[h] = *reinterpret_cast<const float_quad*>(row(head) + first_ + at);
        });
        unrolled<4>([&](auto h) {
          if (g + h < a_.sizes.group) {
            const float sum = log_sums()[g + h];
            unrolled<4>([&](auto i) {
              rank[i] += a_.rank_by_logits ? x[h].x[i] : lane_.exp2(x[h].x[i] - sum);
            });
          }
        });
      }
      word_quad key;
      const bool plain = seen_.shows_all(base_ + first_ + at, 4) && local == 0;
      unrolled<4>([&](auto i) {
        key.x[i] = order_key(rank[i]);
        if (!plain) {
          const std::uint32_t token = base_ + first_ + at + i;
          const bool always = seen_.position(token) + local >= seen_.count;
          key.x[i] = !seen_.shows(token) ? 0
                     : always            ? order_key(std::numeric_limits<float>::infinity())
                                         : key.x[i];
        }
      });
      *reinterpret_cast<word_quad*>(keys_ + at) = key;
    }
  }

  // Computes alpha: the share of each query head's weight that the kept tokens have. `mine`: the
  // kept tokens of this CTA. A CTA adds the sums of its warps and writes the result to the shared
  // memory of the first CTA, which adds these in order. Afterwards no CTA reads another's memory.
  constexpr void sum_kept(const typename top_k::listed& mine) {
    const std::uint32_t* list = a_.listed + item_ * a_.list_stride + mine.first;
    for (std::uint32_t g = 0; g < a_.sizes.group; g += 4) {
      float sums[4] = {};
      for (std::uint32_t i = lane_.thread(); i < mine.count; i += select_threads) {
        const std::uint32_t at = list[i] - base_;
        unrolled<4>([&](auto h) {
          const std::uint32_t head = g + h < a_.sizes.group ? g + h : g;
          sums[h] += lane_.exp2(row(head)[at] - log_sums()[head]);
        });
      }
      for (const std::uint32_t mask : {1u, 2u, 4u, 8u, 16u}) {
        unrolled<4>([&](auto h) { sums[h] += lane_.shuffle_xor(sums[h], mask); });
      }
      if (lane_id() == 0) {
        unrolled<4>([&](auto h) { of_warps()[(g + h) * warps + warp()] = sums[h]; });
      }
    }
    lane_.sync_block();
    const std::uint32_t g = lane_.thread();
    if (g < a_.sizes.group) {
      float sum = 0.0f;
      unrolled<warps>([&](auto w) { sum += of_warps()[g * warps + w]; });
      lane_.of_rank(shares(), 0)[g * top_k::most_ctas + lane_.cluster_rank()] = sum;
    }
    lane_.sync_cluster();
    if (g < a_.sizes.group && lane_.cluster_rank() == 0) {
      float sum = 0.0f;
      for (std::uint32_t r = 0; r < lane_.cluster_ctas(); ++r) {
        sum += shares()[g * top_k::most_ctas + r];
      }
      a_.kept[item_ * a_.sizes.group + g] = sum;
    }
  }

  Lane& lane_;
  const arguments& a_;
  std::int64_t item_;
  std::uint32_t sequence_;
  visible_tokens seen_;
  std::uint32_t base_;  // the token of the first logit
  std::uint32_t span_;
  std::uint32_t first_ = 0;  // this CTA's first token, counted from base
  std::uint32_t count_ = 0;
  std::uint32_t* keys_ = nullptr;
};

}  // namespace instinfer::cuda
