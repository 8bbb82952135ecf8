#pragma once
// Scores of a trained indexer (DSA, MISA) on the CPU path: the definition is score_index in
// summaries/index_scoring.hpp. Codes of keys are widened in registers.

#include <algorithm>
#include <array>
#include <span>
#include <type_traits>
#include <vector>

#include "instinfer/core/scratch.hpp"
#include "instinfer/cpu/score/score_block-inl.hpp"
#include "instinfer/summaries/index_scoring.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

class index_scorer {
 public:
  // to [tokens]: the sum over `heads` of w_h relu(q_h . k), in head order.
  template <class Index>
  void score(const attention::index_query& q, index_view heads, index_view tokens,
             const Index& index, std::span<float> to) {
    constexpr std::uint32_t dims =
        std::tuple_size_v<std::remove_cvref_t<decltype(index.key(0).codes)>>;
    attention::decode_index_queries<static_cast<int>(dims)>(q, heads, queries_, weights_);
    const std::uint32_t count = heads.count();
    resize_scratch(products_, count * std::size_t{score_rows_at_once});
    float scales[score_rows_at_once];
    score_set<dims, fp8>(
        tokens, queries_.data(), count, [&](std::size_t) { return products_.data(); },
        score_rows_at_once,
        [&](std::uint32_t token, std::uint32_t i) {
          const auto& key = index.key(token);
          scales[i] = key.scale;
          return key.codes.data();
        },
        [&](std::size_t first, std::uint32_t n) {
          for (std::uint32_t t = 0; t < n; ++t) {
            const float scale = scales[t] * load_factor<fp8>;
            float sum = 0.0f;
            for (std::uint32_t h = 0; h < count; ++h) {
              const float product = scale * products_[h * score_rows_at_once + t];
              sum += weights_[h] * std::max(0.0f, product);
            }
            to[first + t] = sum;
          }
        });
  }

 private:
  std::vector<float> queries_;   // [heads, dims]
  std::vector<float> weights_;   // [heads]
  std::vector<float> products_;  // [heads, rows of a block]
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
