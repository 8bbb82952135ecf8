#pragma once
// RetroInfer and Squeezed Attention in fp64 on whole matrices, over given clusters.

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "instinfer/summaries/clustering.hpp"
#include "tests/support/token_lists.hpp"

namespace instinfer::test {

struct cluster_index {
  matrix centroids;                 // [clusters, dim]: mean key; zero for an empty cluster
  matrix value_sums;                // [clusters, v_dim]
  row_vector sizes;                 // [clusters]
  row_vector radii;                 // [clusters]: largest distance of a member from the centroid
  std::vector<token_list> members;  // [clusters]

  int clusters() const { return static_cast<int>(members.size()); }
};

// Row i of the clustering is token first + i.
inline cluster_index index_of(const matrix& K, const matrix& V,
                              const attention::clustering& clustering, int first = 0) {
  const auto count = static_cast<Eigen::Index>(clustering.sizes.size());
  cluster_index index{matrix::Zero(count, K.cols()), matrix::Zero(count, V.cols()),
                      row_vector::Zero(count), row_vector::Zero(count),
                      std::vector<token_list>(clustering.sizes.size())};
  for (std::size_t i = 0; i < clustering.cluster_of.size(); ++i) {
    const int token = first + static_cast<int>(i);
    const std::uint32_t c = clustering.cluster_of[i];
    index.members[c].push_back(token);
    index.centroids.row(c) += K.row(token);
    index.value_sums.row(c) += V.row(token);
    index.sizes[c] += 1;
  }
  for (Eigen::Index c = 0; c < count; ++c) {
    index.centroids.row(c) /= std::max(1.0, index.sizes[c]);
    for (const int token : index.members[static_cast<std::size_t>(c)]) {
      index.radii[c] = std::max(index.radii[c], (K.row(token) - index.centroids.row(c)).norm());
    }
  }
  return index;
}

inline token_list members_of(const cluster_index& index, const std::vector<int>& clusters) {
  token_list tokens;
  for (const int c : clusters) {
    const token_list& members = index.members[static_cast<std::size_t>(c)];
    tokens.insert(tokens.end(), members.begin(), members.end());
  }
  std::ranges::sort(tokens);
  return tokens;
}

// ---- RetroInfer: steady, retrieval and estimation zones ----

struct retro_result {
  std::vector<int> retrieved;  // clusters, ascending
  std::vector<int> estimated;
  token_list tokens;  // attended exactly: steady ones and members of the retrieved clusters
  matrix out;         // [group, v_dim]
};

// `steady` are the tokens that are always attended and in no cluster.
inline retro_result transcribed_retro(const matrix& Q, const matrix& K, const matrix& V,
                                      const cluster_index& index, const token_list& steady, int r,
                                      int e) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(K.cols()));
  row_vector distance = row_vector::Zero(index.clusters());
  for (Eigen::Index h = 0; h < Q.rows(); ++h) {
    row_vector logits = Q.row(h) * index.centroids.transpose() * scale;
    for (int c = 0; c < index.clusters(); ++c) {
      logits[c] = index.sizes[c] > 0 ? logits[c] : -std::numeric_limits<double>::infinity();
    }
    distance += test::defined_softmax(logits);
  }
  int filled = 0;
  for (int c = 0; c < index.clusters(); ++c) {
    filled += index.sizes[c] > 0 ? 1 : 0;
    distance[c] = index.sizes[c] > 0 ? distance[c] : -1.0;
  }
  retro_result result;
  result.retrieved = largest(distance, std::min(r, filled));
  const std::vector<int> both = largest(distance, std::min(r + e, filled));
  std::ranges::set_difference(both, result.retrieved, std::back_inserter(result.estimated));
  result.tokens = joined(steady, members_of(index, result.retrieved));

  result.out = matrix::Zero(Q.rows(), V.cols());
  for (Eigen::Index h = 0; h < Q.rows(); ++h) {
    const row_vector exact = Q.row(h) * K(result.tokens, Eigen::all).transpose() * scale;
    const row_vector estimate =
        Q.row(h) * index.centroids(result.estimated, Eigen::all).transpose() * scale;
    double max = -std::numeric_limits<double>::infinity();
    max = exact.size() > 0 ? std::max(max, exact.maxCoeff()) : max;
    max = estimate.size() > 0 ? std::max(max, estimate.maxCoeff()) : max;
    double sum = 0;
    row_vector values = row_vector::Zero(V.cols());
    for (Eigen::Index i = 0; i < exact.size(); ++i) {
      const double p = std::exp(exact[i] - max);
      sum += p;
      values += p * V.row(result.tokens[static_cast<std::size_t>(i)]);
    }
    for (Eigen::Index i = 0; i < estimate.size(); ++i) {
      const int c = result.estimated[static_cast<std::size_t>(i)];
      const double p = std::exp(estimate[i] - max);
      sum += p * index.sizes[c];
      values += p * index.value_sums.row(c);
    }
    if (sum > 0) {
      result.out.row(h) = values / sum;
    }
  }
  return result;
}

// ---- Squeezed Attention: clusters above a probability ----

// exp(q.c_i / sqrt d) / sum_r n_r exp(q.c_r / sqrt d): the estimated probability of one key of
// cluster i, mean over the rows of Q. `counted` has the clusters that are evaluated; the others get
// -1, and no part in the denominator.
inline row_vector key_probability(const matrix& Q, const cluster_index& index,
                                  const std::vector<bool>& counted) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(Q.cols()));
  row_vector mean = row_vector::Constant(index.clusters(), -1.0);
  for (Eigen::Index h = 0; h < Q.rows(); ++h) {
    const row_vector logits = Q.row(h) * index.centroids.transpose() * scale;
    double max = -std::numeric_limits<double>::infinity();
    for (int c = 0; c < index.clusters(); ++c) {
      max = counted[static_cast<std::size_t>(c)] ? std::max(max, logits[c]) : max;
    }
    double sum = 0;
    for (int c = 0; c < index.clusters(); ++c) {
      sum += counted[static_cast<std::size_t>(c)] ? index.sizes[c] * std::exp(logits[c] - max) : 0;
    }
    for (int c = 0; c < index.clusters(); ++c) {
      if (counted[static_cast<std::size_t>(c)]) {
        mean[c] = std::max(mean[c], 0.0) +
                  std::exp(logits[c] - max) / sum / static_cast<double>(Q.rows());
      }
    }
  }
  return mean;
}

inline row_vector key_probability(const matrix& Q, const cluster_index& index) {
  return key_probability(Q, index, std::vector<bool>(index.members.size(), true));
}

// Appends the probability of every key, as estimated, to the pool from which the threshold is
// drawn.
inline void pool_key_probabilities(const row_vector& probability, const cluster_index& index,
                                   std::vector<double>& pool) {
  for (int c = 0; c < index.clusters(); ++c) {
    pool.insert(pool.end(), index.members[static_cast<std::size_t>(c)].size(), probability[c]);
  }
}

// The value that a share z of the pool does not exceed, linear between neighbours.
inline double quantile(std::vector<double> pool, double z) {
  std::ranges::sort(pool);
  const double at = z * static_cast<double>(pool.size() - 1);
  const auto below = static_cast<std::size_t>(at);
  const std::size_t above = std::min(below + 1, pool.size() - 1);
  return pool[below] + (at - static_cast<double>(below)) * (pool[above] - pool[below]);
}

// Clusters whose probability, mean over the queries of a block, exceeds the threshold.
inline std::vector<int> above(const row_vector& probability, double threshold) {
  std::vector<int> kept;
  for (int c = 0; c < probability.size(); ++c) {
    if (probability[c] > threshold) {
      kept.push_back(c);
    }
  }
  return kept;
}

// Two levels: parent [fine clusters] is the coarse cluster of each fine one. Fine clusters whose
// parent passed coarse_threshold are evaluated among themselves.
inline std::vector<int> transcribed_two_level(const matrix& Q, const cluster_index& coarse,
                                              const cluster_index& fine,
                                              const std::vector<std::uint32_t>& parent,
                                              double coarse_threshold, double fine_threshold) {
  const row_vector of_parent = key_probability(Q, coarse);
  std::vector<bool> counted;
  for (const std::uint32_t p : parent) {
    counted.push_back(of_parent[p] > coarse_threshold);
  }
  return above(key_probability(Q, fine, counted), fine_threshold);
}

// The coarse level's index: a key belongs to the coarse cluster of its fine one.
inline attention::clustering composed(const attention::clustering& fine,
                                      const attention::clustering& of_centroids) {
  attention::clustering coarse{{}, std::vector<std::uint32_t>(of_centroids.sizes.size())};
  for (const std::uint32_t c : fine.cluster_of) {
    coarse.cluster_of.push_back(of_centroids.cluster_of[c]);
  }
  coarse.count_sizes();
  return coarse;
}

}  // namespace instinfer::test
