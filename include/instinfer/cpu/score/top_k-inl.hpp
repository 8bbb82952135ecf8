#pragma once
// Exact top-k of the CPU path: a sampled threshold drops most scores in one pass, then bisection
// finds the k-th of the others.

#include <limits>
#include <vector>

#include "instinfer/core/index_set.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

using key_tag = hn::RebindToSigned<float_tag>;

// Signed integers with the order of scores in core/top_k.hpp.
HWY_INLINE hn::Vec<key_tag> order_keys(float_vec x) {
  const key_tag d;
  const float_vec no_negative_zero = hn::IfThenZeroElse(hn::Eq(x, hn::Zero(float_tag{})), x);
  const auto bits = hn::BitCast(d, no_negative_zero);
  const auto negative = hn::BroadcastSignBit(bits);
  return hn::Xor(bits, hn::And(negative, hn::Set(d, std::numeric_limits<std::int32_t>::max())));
}

struct top_k_scratch {
  std::vector<std::int32_t> sample;
  // Keys of the candidates; the lowest key fills up the last vector.
  std::vector<std::int32_t> keys;
  std::vector<std::uint32_t> indices;  // indices of the candidates
};

inline constexpr std::int32_t lowest_key = std::numeric_limits<std::int32_t>::min();

// Number of keys [n], n a multiple of lanes, that are at least `least`.
HWY_INLINE std::size_t count_from(const std::int32_t* keys, std::size_t n, std::int32_t least) {
  const key_tag d;
  auto below = hn::Zero(d);  // the negative count per lane
  for (std::size_t i = 0; i < n; i += lanes) {
    below = hn::Add(below, hn::VecFromMask(d, hn::Lt(hn::LoadU(d, keys + i), hn::Set(d, least))));
  }
  return n - static_cast<std::size_t>(-hn::GetLane(hn::SumOfLanes(d, below)));
}

// The k-th largest of keys [n], n a multiple of lanes; 0 < k <= n. It makes 32 passes over keys in
// L1.
HWY_INLINE std::int32_t kth_largest(const std::int32_t* keys, std::size_t n, std::size_t k) {
  // Invariant: at least k keys are >= least, fewer than k keys are >= most.
  std::int64_t least = lowest_key;
  std::int64_t most = std::int64_t{std::numeric_limits<std::int32_t>::max()} + 1;
  while (most - least > 1) {
    const std::int64_t middle = least + (most - least) / 2;
    (count_from(keys, n, static_cast<std::int32_t>(middle)) >= k ? least : most) = middle;
  }
  return static_cast<std::int32_t>(least);
}

// Collects the scores with a key of at least `least`, as keys and indices. Returns their number.
inline std::size_t collect(std::span<const float> scores, std::int32_t least, top_k_scratch& to) {
  const key_tag d;
  const hn::RebindToUnsigned<key_tag> index_tag;
  resize_scratch(to.keys, scores.size() + 2 * lanes);  // stores write whole vectors
  resize_scratch(to.indices, scores.size() + 2 * lanes);
  std::size_t found = 0;
  std::size_t i = 0;
  auto indices = hn::Iota(index_tag, 0);
  for (; i + lanes <= scores.size(); i += lanes) {
    const auto keys = order_keys(hn::LoadU(float_tag{}, scores.data() + i));
    const auto wanted = hn::Not(hn::Lt(keys, hn::Set(d, least)));
    // Compress in registers, then store whole vectors: a compressing store takes some hundred
    // cycles on Zen 4.
    hn::StoreU(hn::Compress(keys, wanted), d, to.keys.data() + found);
    hn::StoreU(hn::Compress(indices, hn::RebindMask(index_tag, wanted)), index_tag,
               to.indices.data() + found);
    found += hn::CountTrue(d, wanted);
    indices = hn::Add(indices, hn::Set(index_tag, lanes));
  }
  for (; i < scores.size(); ++i) {
    const std::int32_t key = hn::GetLane(order_keys(hn::Set(float_tag{}, scores[i])));
    if (key >= least) {
      to.keys[found] = key;
      to.indices[found++] = static_cast<std::uint32_t>(i);
    }
  }
  std::fill_n(to.keys.begin() + static_cast<std::ptrdiff_t>(found), lanes, lowest_key);
  return found;
}

// Like instinfer::top_k: the k largest, ties to the lower index. The sampled threshold is one that
// about 1.25 k scores reach. If fewer than k scores reach it, all scores are candidates.
inline void top_k_of_many(std::span<const float> scores, std::uint32_t k, index_set& chosen,
                          top_k_scratch& scratch) {
  constexpr std::uint32_t samples = 1024;
  const auto n = static_cast<std::uint32_t>(scores.size());
  if (k >= n) {
    chosen.add(0, n);
    return;
  }
  if (k == 0) {
    return;
  }
  std::int32_t least = lowest_key;
  if (n >= 4 * samples && k <= n / 2) {
    resize_scratch(scratch.sample, samples);
    for (std::uint32_t i = 0; i < samples; ++i) {
      const float x = scores[std::uint64_t{i} * n / samples];
      scratch.sample[i] = hn::GetLane(order_keys(hn::Set(float_tag{}, x)));
    }
    const std::uint64_t rank = std::uint64_t{k} * samples * 5 / 4 / n + 8;
    least = kth_largest(scratch.sample.data(), samples, std::min<std::uint64_t>(rank, samples));
  }
  std::size_t found = collect(scores, least, scratch);
  if (found < k) {
    found = collect(scores, lowest_key, scratch);
  }
  const std::size_t padded = (found + lanes - 1) / lanes * lanes;
  const std::int32_t kth = kth_largest(scratch.keys.data(), padded, k);
  const std::size_t above = kth == std::numeric_limits<std::int32_t>::max()
                                ? 0
                                : count_from(scratch.keys.data(), padded, kth + 1);
  std::size_t ties = k - above;
  for (std::size_t i = 0; i < found; ++i) {
    const std::int32_t key = scratch.keys[i];
    if (key > kth || (key == kth && ties > 0)) {
      ties -= key == kth ? 1 : 0;
      chosen.add(scratch.indices[i]);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
