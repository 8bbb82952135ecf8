#pragma once
// Rows sorted into clusters, and what cluster methods derive from them: cluster-major order and
// mean keys.
// summaries/kmeans.hpp computes clusterings.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/codec/unit_rules.hpp"

namespace instinfer::attention {

// The cluster of each row. Clusters may be empty.
struct clustering {
  std::vector<std::uint32_t> cluster_of;  // [rows]
  std::vector<std::uint32_t> sizes;       // [clusters]
  int iterations = 0;                     // number of assign steps made

  void count_sizes() {
    std::ranges::fill(sizes, 0);
    for (const std::uint32_t cluster : cluster_of) {
      ++sizes[cluster];
    }
  }
};

// Rows sorted by cluster, and by row number within a cluster. Cluster c has rows[offsets[c]] to
// rows[offsets[c + 1] - 1].
struct cluster_order {
  std::vector<std::uint32_t> rows;     // [rows], a permutation
  std::vector<std::uint32_t> offsets;  // [clusters + 1]

  std::span<const std::uint32_t> members(std::size_t cluster) const {
    return std::span(rows).subspan(offsets[cluster], offsets[cluster + 1] - offsets[cluster]);
  }
};

inline cluster_order cluster_major(const clustering& c) {
  cluster_order order{std::vector<std::uint32_t>(c.cluster_of.size()),
                      std::vector<std::uint32_t>(c.sizes.size() + 1)};
  for (std::size_t i = 0; i < c.sizes.size(); ++i) {
    order.offsets[i + 1] = order.offsets[i] + c.sizes[i];
  }
  std::vector<std::uint32_t> next(order.offsets.begin(), order.offsets.end() - 1);
  for (std::uint32_t row = 0; row < order.rows.size(); ++row) {
    order.rows[next[c.cluster_of[row]]++] = row;
  }
  return order;
}

// The new order of a run of tokens: cluster after cluster. The clusters of one coarse cluster are
// consecutive.
struct cluster_levels {
  cluster_order fine;  // offsets count tokens of the run
  // [coarse clusters], end of each in fine clusters. Empty: one level.
  std::vector<std::uint32_t> parent_ends{};
};

// Two levels: `parents` sorts the clusters of `fine` into coarse clusters. Fine clusters get new
// numbers, consecutive within a coarse cluster. Empty clusters are left out.
inline cluster_levels nested(const clustering& fine, const clustering& parents) {
  const cluster_order children = cluster_major(parents);
  std::vector<std::uint32_t> number(fine.sizes.size());
  cluster_levels levels;
  std::uint32_t next = 0;
  for (std::size_t parent = 0; parent < parents.sizes.size(); ++parent) {
    for (const std::uint32_t child : children.members(parent)) {
      number[child] = next;
      next += fine.sizes[child] > 0 ? 1u : 0u;
    }
    levels.parent_ends.push_back(next);
  }
  clustering renumbered{.cluster_of = fine.cluster_of, .sizes = std::vector<std::uint32_t>(next)};
  for (std::uint32_t& cluster : renumbered.cluster_of) {
    cluster = number[cluster];
  }
  renumbered.count_sizes();
  levels.fine = cluster_major(renumbered);
  return levels;
}

// Mean row of every cluster, [clusters, dim]; zero for an empty cluster. Sums are in double. The
// rows [rows, dim] may differ from the clustered rows: methods that normalise or centre keys for
// clustering store the means of the original keys.
inline std::vector<float> cluster_means(std::span<const float> rows, int dim, const clustering& c) {
  const auto d = static_cast<std::size_t>(dim);
  std::vector<double> sums(c.sizes.size() * d);
  for (std::size_t row = 0; row < c.cluster_of.size(); ++row) {
    double* sum = &sums[c.cluster_of[row] * d];
    for (std::size_t i = 0; i < d; ++i) {
      sum[i] += static_cast<double>(rows[row * d + i]);
    }
  }
  std::vector<float> means(sums.size());
  for (std::size_t at = 0; at < means.size(); ++at) {
    means[at] = static_cast<float>(sums[at] / std::max(1.0, static_cast<double>(c.sizes[at / d])));
  }
  return means;
}

}  // namespace instinfer::attention
