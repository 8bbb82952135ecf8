#pragma once
// The thresholds of Squeezed Attention: the probability that a cluster's keys must reach, so that a
// given share of all keys is dropped on average over a model.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/logit_rule.hpp"
#include "instinfer/summaries/chunks.hpp"

namespace instinfer::attention {

// Pools the clusters of all layers and heads that it is given, weighted by their tokens.
class threshold_calibration {
 public:
  // queries [n, k_dim] are looked up as one block, for example a user's question; pass them one by
  // one for decode. A cluster's probability is the mean over the queries of exp(q.c) / sum of n
  // exp(q.c). Throws bad_argument for no queries or an incomplete one.
  template <ChunkState Index>
  void add(const Index& index, std::span<const float> queries, const logit_rule& rule = {}) {
    constexpr std::size_t dim = Index::row_dim;
    require(!queries.empty() && queries.size() % dim == 0, [&] {
      return "threshold calibration: queries must be [n, " + std::to_string(dim) +
             "], n > 0, got " + std::to_string(queries.size()) + " values";
    });
    const std::size_t first = clusters_.size();
    const std::uint32_t begin = first_chunk_of(index);
    for (std::uint32_t u = begin; u < index.chunks(); ++u) {
      clusters_.push_back({0.0, static_cast<double>(index.weight(u))});
    }
    const double each = 1.0 / static_cast<double>(queries.size() / dim);
    std::vector<double> logits(index.chunks() - begin);
    for (std::size_t at = 0; at < queries.size() && !logits.empty(); at += dim) {
      for (std::uint32_t u = 0; u < logits.size(); ++u) {
        const std::span<const float> row = index.row(begin + u, {});
        double product = 0.0;
        for (std::size_t i = 0; i < dim; ++i) {
          product += static_cast<double>(row[i]) * static_cast<double>(queries[at + i]);
        }
        logits[u] = rule.capped(product * rule.template scale_for<double>(static_cast<int>(dim)));
      }
      const double max = std::ranges::max(logits);
      double sum = 0.0;
      for (std::uint32_t u = 0; u < logits.size(); ++u) {
        sum += index.weight(begin + u) * std::exp(logits[u] - max);
      }
      for (std::uint32_t u = 0; u < logits.size(); ++u) {
        clusters_[first + u].probability += each * std::exp(logits[u] - max) / sum;
      }
    }
  }

  // The clusters of a head by the queries of its group, [n, group, k_dim], one look-up for each of
  // the n: squeezed keeps a cluster that any head of the group asks for, so its probability is the
  // largest of theirs.
  template <ChunkState Index>
  void add_groups(const Index& index, std::span<const float> queries, std::uint32_t group,
                  const logit_rule& rule = {}) {
    const std::size_t row = group * Index::row_dim;
    for (std::size_t at = 0; at + row <= queries.size(); at += row) {
      const std::size_t first = clusters_.size();
      add(index, queries.subspan(at, Index::row_dim), rule);
      const std::size_t count = clusters_.size() - first;
      for (std::size_t h = 1; h < group; ++h) {
        add(index, queries.subspan(at + h * Index::row_dim, Index::row_dim), rule);
        for (std::size_t u = first; u < first + count; ++u) {
          clusters_[u].probability =
              std::max(clusters_[u].probability, clusters_[u + count].probability);
        }
        clusters_.resize(first + count);
      }
    }
  }

  // The threshold that drops the share `dropped` of all tokens, up to ties: clusters above it are
  // kept. It is half-way between neighbours, so that no rounding decides. Throws bad_argument
  // outside [0, 1), before anything was added, or if ties would leave nothing to keep.
  double threshold(double dropped) const {
    require(dropped >= 0.0 && dropped < 1.0, [&] {
      return "threshold calibration: the share to drop must lie in [0, 1), got " +
             std::to_string(dropped);
    });
    require(!clusters_.empty(), [] {
      return std::string(
          "threshold calibration: no clusters; add() those of built sequences first");
    });
    std::vector<cluster> sorted = clusters_;
    std::ranges::sort(sorted, {}, &cluster::probability);
    double all = 0.0;
    for (const cluster& c : sorted) {
      all += c.tokens;
    }
    double below = 0.0;
    std::size_t out = 0;  // number of dropped clusters
    while (out < sorted.size() && below + sorted[out].tokens <= dropped * all * (1.0 + 1e-12)) {
      below += sorted[out++].tokens;
    }
    if (out == 0) {
      return 0.0;  // keeps everything
    }
    const double last = sorted[out - 1].probability;
    const auto kept = std::ranges::upper_bound(sorted, last, {}, &cluster::probability);
    require(kept != sorted.end(), [&] {
      return "threshold calibration: dropping " + std::to_string(dropped) +
             " would keep nothing, the clusters that remain are as probable as the last dropped";
    });
    return (last + kept->probability) / 2;
  }

 private:
  struct cluster {
    double probability;  // estimate for one of its keys
    double tokens;
  };
  std::vector<cluster> clusters_;
};

}  // namespace instinfer::attention
