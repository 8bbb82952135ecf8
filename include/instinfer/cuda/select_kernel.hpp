#pragma once
// The second pass of SparQ and SparF on a GPU: of every KV head's tokens the exact k largest sums of probabilities over the
// query group, ties to the lower token as in core/top_k.hpp, as an ascending list. One CTA a head.
//
// Radix select on order-preserving keys, 11 + 11 + 10 bits: three passes of counting over keys in shared memory, then one
// that writes. Digits of 11 bits take the sign, the exponent and two bits of the fraction at once, which spreads the counts
// of softmax values better than 8 bits, whose first digit is the exponent's upper half.

#include "instinfer/core/top_k.hpp"
#include "instinfer/cuda/sparse_arguments.hpp"
#include "instinfer/cuda/unrolled.hpp"

namespace instinfer::cuda {

inline constexpr std::uint32_t radix_bins = 2048;

template <class Lane, class E, class Code = E>
class select_kernel {
 public:
  // Maxima and inverse sums of the group [16, 2], counts of the warps [32, 2], four words, the bins; keys follow if they fit.
  static constexpr std::uint32_t fixed_words = 2 * largest_group + 64 + 4 + radix_bins;
  static constexpr std::uint64_t shared_bytes(std::uint64_t keys) {
    return (fixed_words + keys) * 4;
  }

  // `shared_keys` fit in shared memory behind the rest; longer heads keep theirs in a.keys.
  constexpr select_kernel(Lane& lane, const sparse_arguments<E, Code>& a, std::uint32_t shared_keys)
      : lane_{lane}, a_{a}, shared_keys_{shared_keys} {}

  constexpr void run() {
    item_ = lane_.block();
    const std::uint32_t sequence = lane_.block() / a_.sizes.kv_heads;
    seen_ = a_.seen(sequence);
    base_ = a_.base(sequence);
    std::uint32_t k = a_.keep.of(seen_.count);
    if (k > a_.list_stride) {
      k = static_cast<std::uint32_t>(a_.list_stride);
      status_ |= token_beyond_table;
    }
    if (!a_.fits(sequence)) {
      status_ |= token_beyond_table;
    }
    keys_ = seen_.count <= shared_keys_ ? words() + fixed_words : a_.keys + item_ * a_.logit_stride;
    merge_states(a_.span(sequence));
    make_keys(a_.keep.local(k));
    if (k > 0) {
      list_tokens(find_threshold(k));
    }
    sum_kept(k);
    if (lane_.thread() == 0) {
      if (lane_.block() % a_.sizes.kv_heads == 0) {
        a_.listed_counts[sequence] = k;
      }
      if (status_ != 0) {
        lane_.set_bits(a_.status, status_);
      }
    }
  }

 private:
  // Keys above `key` are kept, and of those equal to it the first `ties`.
  struct threshold {
    std::uint32_t key = 0;
    std::uint32_t ties = 0;
  };

  constexpr std::uint32_t* words() const {
    return reinterpret_cast<std::uint32_t*>(lane_.shared());
  }
  constexpr float* maxima() const { return reinterpret_cast<float*>(words()); }
  constexpr float* inverse_sums() const { return maxima() + largest_group; }
  constexpr std::uint32_t* warp_counts() const { return words() + 2 * largest_group; }
  constexpr std::uint32_t* found() const { return warp_counts() + 64; }
  constexpr std::uint32_t* bins() const { return found() + 4; }
  constexpr std::uint32_t warp() const { return lane_.thread() / 32; }
  constexpr std::uint32_t lane_id() const { return lane_.thread() % 32; }
  constexpr std::uint32_t warps() const { return lane_.threads() / 32; }

  constexpr float logit(std::uint32_t g, std::uint32_t position) const {
    return a_
        .logits[(item_ * a_.sizes.group + g) * a_.logit_stride + seen_.token(position) - base_];
  }
  constexpr float probability(std::uint32_t g, std::uint32_t position) const {
    return lane_.exp2(logit(g, position) - maxima()[g]) * inverse_sums()[g];
  }

  // Chunk states to maximum and sum of each query head: a warp a head.
  constexpr void merge_states(std::uint32_t span) {
    const std::uint32_t chunks = (span + score_chunk - 1) / score_chunk;
    const float_pair* states = a_.states + item_ * (a_.logit_stride / score_chunk) * a_.sizes.group;
    for (std::uint32_t g = warp(); g < a_.sizes.group; g += warps()) {
      float max = -std::numeric_limits<float>::infinity();
      for (std::uint32_t c = lane_id(); c < chunks; c += 32) {
        const float m = states[c * a_.sizes.group + g].max;
        max = m > max ? m : max;
      }
      for (const std::uint32_t mask : {1u, 2u, 4u, 8u, 16u}) {
        const float other = lane_.shuffle_xor(max, mask);
        max = other > max ? other : max;
      }
      float sum = 0.0f;
      for (std::uint32_t c = lane_id(); c < chunks; c += 32) {
        const float_pair s = states[c * a_.sizes.group + g];
        sum += s.sum > 0.0f ? s.sum * lane_.exp2(s.max - max) : 0.0f;
      }
      for (const std::uint32_t mask : {1u, 2u, 4u, 8u, 16u}) {
        sum += lane_.shuffle_xor(sum, mask);
      }
      if (lane_id() == 0) {
        maxima()[g] = max;
        inverse_sums()[g] = sum > 0.0f ? 1.0f / sum : 0.0f;
      }
    }
    lane_.sync_block();
  }

  constexpr void make_keys(std::uint32_t local) {
    for (std::uint32_t p = lane_.thread(); p < seen_.count; p += lane_.threads()) {
      float rank = 0.0f;
      for (std::uint32_t g = 0; g < a_.sizes.group; ++g) {
        rank += a_.rank_by_logits ? logit(g, p) : probability(g, p);
      }
      keys_[p] =
          order_key(p + local >= seen_.count ? std::numeric_limits<float>::infinity() : rank);
    }
    lane_.sync_block();
  }

  // The k-th largest key, digit by digit from the top.
  constexpr threshold find_threshold(std::uint32_t k) {
    threshold t{0, k};
    std::uint32_t known = 0;  // bits of the key that are settled
    for (const std::uint32_t shift : {21u, 10u, 0u}) {
      const std::uint32_t digit = shift == 0 ? 1023 : radix_bins - 1;
      for (std::uint32_t b = lane_.thread(); b < radix_bins; b += lane_.threads()) {
        bins()[b] = 0;
      }
      lane_.sync_block();
      for (std::uint32_t p = lane_.thread(); p < seen_.count; p += lane_.threads()) {
        if ((keys_[p] & known) == t.key) {
          lane_.count(bins() + (keys_[p] >> shift & digit));
        }
      }
      lane_.sync_block();
      find_bin(t.ties);
      t.key |= found()[0] << shift;
      t.ties -= found()[1];
      known |= digit << shift;
      lane_.sync_block();
    }
    return t;
  }

  // The highest bin with `wanted` or more keys in it and above, to found()[0]; those above it to found()[1]. A thread takes
  // bins / threads neighbouring bins, a warp's bins are summed by shuffles, warps by each thread.
  constexpr void find_bin(std::uint32_t wanted) {
    const std::uint32_t each = radix_bins / lane_.threads();
    const std::uint32_t high = radix_bins - 1 - lane_.thread() * each;  // this thread's highest
    std::uint32_t mine = 0;
    for (std::uint32_t b = 0; b < each; ++b) {
      mine += bins()[high - b];
    }
    std::uint32_t above = inclusive_sum(mine);
    if (lane_id() == 31) {
      warp_counts()[warp()] = above;
    }
    above -= mine;
    lane_.sync_block();
    for (std::uint32_t w = 0; w < warp(); ++w) {
      above += warp_counts()[w];
    }
    for (std::uint32_t b = 0; b < each; ++b) {
      const std::uint32_t n = bins()[high - b];
      if (above < wanted && wanted <= above + n) {
        found()[0] = high - b;
        found()[1] = above;
      }
      above += n;
    }
    lane_.sync_block();
  }

  // Sum over this lane and those before it.
  constexpr std::uint32_t inclusive_sum(std::uint32_t x) const {
    for (const std::uint32_t distance : {1u, 2u, 4u, 8u, 16u}) {
      const std::uint32_t other =
          lane_.shuffle(x, lane_id() >= distance ? lane_id() - distance : lane_id());
      x += lane_id() >= distance ? other : 0;
    }
    return x;
  }

  // Writes the kept tokens in ascending order. A warp has a stretch of positions, 32 at a time: counts, then places.
  constexpr void list_tokens(const threshold& t) {
    const std::uint32_t stretch =
        (seen_.count + lane_.threads() - 1) / lane_.threads() * 32;  // positions a warp
    const std::uint32_t first = warp() * stretch;
    const std::uint32_t last = first + stretch < seen_.count ? first + stretch : seen_.count;
    std::uint32_t larger = 0;
    std::uint32_t equal = 0;
    for (std::uint32_t p = first; p < last; p += 32) {
      const std::uint32_t key = p + lane_id() < last ? keys_[p + lane_id()] : 0;  // 0: no key
      larger += lane_.bits(lane_.ballot(key > t.key));
      equal += lane_.bits(lane_.ballot(key == t.key && p + lane_id() < last));
    }
    if (lane_id() == 0) {
      warp_counts()[2 * warp()] = larger;
      warp_counts()[2 * warp() + 1] = equal;
    }
    lane_.sync_block();
    larger = 0;
    equal = 0;
    for (std::uint32_t w = 0; w < warp(); ++w) {
      larger += warp_counts()[2 * w];
      equal += warp_counts()[2 * w + 1];
    }
    const std::uint32_t before = (1u << lane_id()) - 1;
    std::uint32_t* list = a_.listed + item_ * a_.list_stride;
    for (std::uint32_t p = first; p < last; p += 32) {
      const bool live = p + lane_id() < last;
      const std::uint32_t key = live ? keys_[p + lane_id()] : 0;
      const std::uint32_t above = lane_.ballot(key > t.key);
      const std::uint32_t same = lane_.ballot(live && key == t.key);
      const std::uint32_t ties_before = equal + lane_.bits(same & before);
      const bool kept = key > t.key || (live && key == t.key && ties_before < t.ties);
      if (kept) {
        const std::uint32_t ties = ties_before < t.ties ? ties_before : t.ties;
        list[larger + lane_.bits(above & before) + ties] = seen_.token(p + lane_id());
      }
      larger += lane_.bits(above);
      equal += lane_.bits(same);
    }
    lane_.sync_block();
  }

  // alpha: the share of each query head's weight that the kept tokens have. A warp a head.
  constexpr void sum_kept(std::uint32_t k) {
    const std::uint32_t* list = a_.listed + item_ * a_.list_stride;
    for (std::uint32_t g = warp(); g < a_.sizes.group; g += warps()) {
      const float* row = a_.logits + (item_ * a_.sizes.group + g) * a_.logit_stride;
      float sum = 0.0f;
      for (std::uint32_t i = lane_id(); i < k; i += 32) {
        sum += lane_.exp2(row[list[i] - base_] - maxima()[g]) * inverse_sums()[g];
      }
      for (const std::uint32_t mask : {1u, 2u, 4u, 8u, 16u}) {
        sum += lane_.shuffle_xor(sum, mask);
      }
      if (lane_id() == 0) {
        a_.kept[item_ * a_.sizes.group + g] = sum;
      }
    }
  }

  Lane& lane_;
  const sparse_arguments<E, Code>& a_;
  std::uint32_t shared_keys_;
  std::int64_t item_ = 0;
  visible_tokens seen_ = {};
  std::uint32_t base_ = 0;
  std::uint32_t* keys_ = nullptr;
  std::uint32_t status_ = 0;
};

}  // namespace instinfer::cuda
