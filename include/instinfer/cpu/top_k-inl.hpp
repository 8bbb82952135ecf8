#pragma once
// Exact top-k of the CPU path: core/top_k.hpp on the few candidates that a sampled threshold leaves.

#include <vector>

#include "instinfer/core/top_k.hpp"
#include "instinfer/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

struct top_k_scratch {
  std::vector<order_key_t<float>> keys;
  std::vector<float> scores;           // of the candidates
  std::vector<std::uint32_t> indices;  // of the candidates
  std::vector<float> sample;
  index_set positions;  // chosen ones among the candidates
};

// As instinfer::top_k: the k largest, ties to the lower index. A threshold that about 1.25 k scores reach, by an evenly
// spaced sample, lets one compressing pass drop the rest; where the sample misled and fewer than k remain, all compete.
inline void top_k_of_many(std::span<const float> scores, std::uint32_t k, index_set& chosen,
                          top_k_scratch& scratch) {
  constexpr std::uint32_t samples = 1024;
  const auto n = static_cast<std::uint32_t>(scores.size());
  if (k == 0 || n < 4 * samples || k > n / 2) {
    top_k<float>(scores, k, chosen, scratch.keys);
    return;
  }
  resize_scratch(scratch.sample, samples);
  for (std::uint32_t i = 0; i < samples; ++i) {
    scratch.sample[i] = scores[std::uint64_t{i} * n / samples];
  }
  const auto rank =
      scratch.sample.begin() +
      std::min<std::uint64_t>(samples - 1, std::uint64_t{k} * samples * 5 / 4 / n + 8);
  std::nth_element(scratch.sample.begin(), rank, scratch.sample.end(),
                   [](float a, float b) { return order_key(a) > order_key(b); });
  const float threshold = *rank;

  const hn::RebindToUnsigned<float_tag> index_tag;
  resize_scratch(scratch.scores, n + lanes);  // the compressing stores write whole vectors
  resize_scratch(scratch.indices, n + lanes);
  std::size_t found = 0;
  std::uint32_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const float_vec v = hn::LoadU(float_tag{}, scores.data() + i);
    const auto candidate =
        hn::Not(hn::Lt(v, hn::Set(float_tag{}, threshold)));  // NaN competes, as in core/top_k.hpp
    if (hn::AllFalse(float_tag{}, candidate)) {
      continue;
    }
    hn::CompressStore(v, candidate, float_tag{}, scratch.scores.data() + found);
    found += hn::CompressStore(hn::Iota(index_tag, i), hn::RebindMask(index_tag, candidate),
                               index_tag, scratch.indices.data() + found);
  }
  for (; i < n; ++i) {
    if (!(scores[i] < threshold)) {
      scratch.scores[found] = scores[i];
      scratch.indices[found++] = i;
    }
  }
  if (found < k) {
    top_k<float>(scores, k, chosen, scratch.keys);
    return;
  }
  scratch.positions.clear();
  top_k<float>(std::span(scratch.scores).first(found), k, scratch.positions, scratch.keys);
  scratch.positions.view().for_each(
      [&](std::uint32_t position) { chosen.add(scratch.indices[position]); });
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
