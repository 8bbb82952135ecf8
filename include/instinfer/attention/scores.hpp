#pragma once
// Scores of candidates for the query heads of a group, and their reduction to one rank.
// Selection methods differ in this reduction.

#include <algorithm>
#include <cstdint>
#include <span>

#include "instinfer/core/index_set.hpp"

namespace instinfer::attention {

// T is float on compute paths, double in the reference.
template <class T>
struct score_array {
  index_view candidates;  // tokens, or chunks of a summary (pages, clusters)
  std::span<T> values;    // [heads, candidates.count()]: logits, or probabilities after softmax

  std::span<T> head(std::size_t h) const {
    return values.subspan(h * candidates.count(), candidates.count());
  }
  std::size_t heads() const { return candidates.empty() ? 0 : values.size() / candidates.count(); }
};

// The heads of a group share one selection, so their scores are reduced to one rank. Methods with
// one selection per head run head by head instead (per_query_head.hpp).
//   sum   SparQ: of logits; SparF, RetroInfer: of probabilities
//   max   Quest: of bounds, so that the result bounds every head; ShadowKV: of probabilities
enum class group_reduction : std::uint8_t { sum, max };

// rank [candidates]: the reduced scores of the heads. Zeros if there is no head.
template <class T>
void reduce(const score_array<T>& scores, group_reduction how, std::span<T> rank) {
  if (scores.heads() == 0) {
    std::ranges::fill(rank, T{0});
    return;
  }
  std::ranges::copy(scores.head(0), rank.begin());
  for (std::size_t h = 1; h < scores.heads(); ++h) {
    const std::span<const T> head = scores.head(h);
    for (std::size_t i = 0; i < rank.size(); ++i) {
      rank[i] = how == group_reduction::sum ? rank[i] + head[i] : std::max(rank[i], head[i]);
    }
  }
}

// Softmax weight of a candidate that stands only for itself.
struct one_each {
  constexpr std::uint32_t operator()(std::uint32_t /*candidate*/) const { return 1; }
};

// Adds the candidates whose rank is above the threshold to `chosen`.
template <class Scores, class T>
void above(const Scores& scores, std::span<const T> rank, double threshold, index_set& chosen) {
  std::size_t at = 0;
  scores.candidates.for_each([&](std::uint32_t candidate) {
    if (static_cast<double>(rank[at++]) > threshold) {
      chosen.add(candidate);
    }
  });
}

}  // namespace instinfer::attention
