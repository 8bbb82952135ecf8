#pragma once
// The k-means clustering of keys that cluster methods share.
//
//   cosine_kmeans      Lloyd on normalised rows, from a k-means++ start        (Squeezed Attention)
//   segmented_kmeans   inner product on centred rows, first in each segment,
//                      then one assignment over all                                    (RetroInfer)
//
// Deterministic: the same bits on every compiler, ties to the lower cluster. Clustering 8192 rows
// of 64 dims into 512 clusters takes 0.2 s for 10 iterations on one core of an AVX2 server, 14 G
// multiply-adds a second; 0.35 s without -march.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "instinfer/codec/element.hpp"
#include "instinfer/core/errors.hpp"
#include "instinfer/summaries/clustering.hpp"
#include "instinfer/summaries/row_products.hpp"

namespace instinfer::attention {

namespace detail {

// x / |x| for each row [dim]; zero rows stay zero.
inline void normalise_rows(std::span<float> rows, std::size_t dim) {
  for (std::size_t at = 0; at < rows.size(); at += dim) {
    const double norm = std::sqrt(dot(&rows[at], &rows[at], dim));
    for (std::size_t i = at; i < at + dim && norm > 0; ++i) {
      rows[i] = static_cast<float>(static_cast<double>(rows[i]) / norm);
    }
  }
}

// Moves the centroids [clusters, dim] to the means of their members. Centroids of empty clusters
// stay.
inline void move_to_means(std::span<const float> rows, int dim, clustering& c,
                          std::span<float> centroids) {
  c.count_sizes();
  const std::vector<float> means = cluster_means(rows, dim, c);
  for (std::size_t at = 0; at < means.size(); ++at) {
    centroids[at] = c.sizes[at / static_cast<std::size_t>(dim)] > 0 ? means[at] : centroids[at];
  }
}

// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct split_mix {
  std::uint64_t state;
  double uniform() {  // in [0, 1), a multiple of 2^-53
    std::uint64_t z = state += 0x9E37'79B9'7F4A'7C15u;
    z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9u;
    z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EBu;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }
};

// k-means++ (Arthur, Vassilvitskii 2007): each next centroid is a random row, weighted by the
// square of its distance to the nearest centroid so far. If all rows left are copies of centroids,
// it is one of these copies, and its cluster will be empty.
inline std::vector<float> spread_rows(std::span<const float> rows, std::size_t dim,
                                      std::size_t clusters, std::uint64_t seed) {
  const dim_major_rows by_dim(rows, dim);
  std::vector<double> square(by_dim.count());
  for (std::size_t row = 0; row < square.size(); ++row) {
    square[row] = dot(&rows[row * dim], &rows[row * dim], dim);
  }
  std::vector<double> weight(by_dim.count(), 1.0);  // all rows have the same probability at first
  std::vector<double> centroid(by_dim.dims());
  std::vector<float> centroids;
  centroids.reserve(clusters * dim);
  split_mix random{seed};
  while (centroids.size() < clusters * dim) {
    const double target = random.uniform() * std::accumulate(weight.begin(), weight.end(), 0.0);
    double sum = 0;
    std::size_t drawn = 0;
    for (std::size_t row = 0; row < weight.size() && sum <= target; ++row) {
      sum += weight[row];
      drawn = weight[row] > 0 ? row : drawn;
    }
    const bool first = centroids.empty();
    const auto chosen = rows.subspan(drawn * dim, dim);
    centroids.insert(centroids.end(), chosen.begin(), chosen.end());
    std::ranges::copy(chosen, centroid.begin());
    by_dim.products<1>(centroid, [&](std::size_t row, const auto& product) {
      const double distance = std::max(0.0, square[row] + square[drawn] - 2.0 * product[0]);
      weight[row] = first ? distance : std::min(weight[row], distance);
    });
  }
  return centroids;
}

// Throws bad_argument unless rows are whole and finite, and at least as many as clusters. No rows
// with no clusters is valid.
inline void check_rows(const char* who, std::span<const float> rows, int dim,
                       std::uint32_t clusters) {
  const auto complain = [&](const std::string& what) { return std::string(who) + ": " + what; };
  require(dim > 0, [&] { return complain("dim must be positive, got " + std::to_string(dim)); });
  const auto d = static_cast<std::size_t>(dim);
  require(rows.size() % d == 0, [&] {
    return complain(std::to_string(rows.size()) + " values are not whole rows of " +
                    std::to_string(dim));
  });
  const std::size_t count = rows.size() / d;
  require(clusters <= count && (clusters > 0 || count == 0), [&] {
    const std::string n = std::to_string(count);
    return complain(
        (count == 0 ? "no rows make no clusters" : n + " rows make 1 to " + n + " clusters") +
        ", got " + std::to_string(clusters));
  });
  const auto bad = std::ranges::find_if_not(rows, [](float x) { return is_finite(x); });
  require(bad == rows.end(), [&] {
    const auto at = static_cast<std::size_t>(bad - rows.begin());
    return complain("row " + std::to_string(at / d) + ", dim " + std::to_string(at % d) + " is " +
                    std::to_string(*bad) + ", must be finite");
  });
}

inline void check_iterations(const char* who, int iterations, int least) {
  require(iterations >= least, [&] {
    return std::string(who) + ": needs at least " + std::to_string(least) + " iterations, got " +
           std::to_string(iterations);
  });
}

}  // namespace detail

// Cosine clustering of rows [rows, dim] (Squeezed Attention, arXiv 2411.09688). Rows are
// normalised, then Lloyd's iterations run from a k-means++ start until no row changes its cluster.
// A cluster that loses all rows keeps its centroid. With the centroids of one level as rows, it
// computes the next coarser level.
struct cosine_kmeans {
  std::uint32_t clusters = 1;
  std::uint64_t seed = 1;
  int max_iterations = 300;

  // Throws bad_argument for more clusters than rows, rows but 0 clusters, values that are not
  // finite, or incomplete rows.
  clustering operator()(std::span<const float> rows, int dim) const {
    detail::check_rows("cosine_kmeans", rows, dim, clusters);
    detail::check_iterations("cosine_kmeans", max_iterations, 1);
    const auto d = static_cast<std::size_t>(dim);
    std::vector<float> unit(rows.begin(), rows.end());
    detail::normalise_rows(unit, d);
    std::vector<float> centroids = detail::spread_rows(unit, d, clusters, seed);
    std::vector<double> bias(clusters);
    clustering result{std::vector<std::uint32_t>(rows.size() / d, clusters),
                      std::vector<std::uint32_t>(clusters)};
    for (bool changed = !rows.empty(); changed && result.iterations < max_iterations;) {
      for (std::size_t c = 0; c < clusters; ++c) {  // x.c - |c|^2 / 2 is largest for the nearest c
        bias[c] = -0.5 * detail::dot(&centroids[c * d], &centroids[c * d], d);
      }
      changed = detail::assign(unit, d, centroids, bias, result.cluster_of);
      detail::move_to_means(unit, dim, result, centroids);
      ++result.iterations;
    }
    return result;
  }
};

// The clustering of RetroInfer's wave index (arXiv 2505.02922):
// 1. Subtract the mean of all rows. Keys share a large offset that attention does not see, but that
//    would decide the inner products.
// 2. Cluster contiguous segments of rows separately, from evenly spaced rows, with `iterations`
//    times {assign to the largest inner product, normalise the means}.
// 3. Assign all rows once more to the centroids of all segments.
struct segmented_kmeans {
  std::uint32_t clusters = 1;
  std::uint32_t segments = 1;
  int iterations = 9;
  bool centred = true;

  // The paper's setting: 16 rows per cluster, 8192 per segment; the number of clusters is a
  // multiple of 8 and of the segments.
  static segmented_kmeans for_rows(std::uint32_t rows, std::uint32_t rows_per_cluster = 16,
                                   std::uint32_t rows_per_segment = 8192) {
    require(rows_per_cluster > 0 && rows_per_segment > 0, [] {
      return std::string("segmented_kmeans: clusters and segments must have at least one row");
    });
    const std::uint32_t segments = std::max(1u, (rows + rows_per_segment / 2) / rows_per_segment);
    const std::uint32_t unit = std::lcm(8u, segments);
    const std::uint32_t clusters = std::max(1u, (rows / rows_per_cluster + unit / 2) / unit) * unit;
    return {.clusters = std::min(rows, clusters), .segments = segments};
  }

  // Throws bad_argument as cosine_kmeans does, and if a segment would have no cluster or fewer rows
  // than clusters.
  clustering operator()(std::span<const float> rows, int dim) const {
    detail::check_rows("segmented_kmeans", rows, dim, clusters);
    detail::check_iterations("segmented_kmeans", iterations, 0);
    const auto d = static_cast<std::size_t>(dim);
    const std::size_t count = rows.size() / d;
    require(segments > 0 && segments <= std::max(1u, clusters), [&] {
      return "segmented_kmeans: " + std::to_string(clusters) + " clusters make 1 to " +
             std::to_string(clusters) + " segments, got " + std::to_string(segments);
    });
    const std::vector<float> moved =
        centred ? less_mean(rows, d) : std::vector(rows.begin(), rows.end());
    std::vector<float> centroids(clusters * d);
    for (std::size_t s = 0; s < segments; ++s) {
      const std::size_t row = s * count / segments;
      const std::size_t cluster = s * clusters / segments;
      const std::size_t rows_here = (s + 1) * count / segments - row;
      const std::size_t clusters_here = (s + 1) * clusters / segments - cluster;
      require(clusters_here <= rows_here, [&] {
        return "segmented_kmeans: segment " + std::to_string(s) + " has " +
               std::to_string(rows_here) + " rows, too few for its " +
               std::to_string(clusters_here) + " clusters; take fewer segments";
      });
      cluster_segment(std::span(moved).subspan(row * d, rows_here * d), dim,
                      std::span(centroids).subspan(cluster * d, clusters_here * d));
    }
    clustering result{std::vector<std::uint32_t>(count), std::vector<std::uint32_t>(clusters)};
    detail::assign(moved, d, centroids, std::vector(clusters, 0.0), result.cluster_of);
    result.count_sizes();
    result.iterations = iterations + 1;
    return result;
  }

 private:
  static std::vector<float> less_mean(std::span<const float> rows, std::size_t dim) {
    std::vector<double> mean(dim);
    for (std::size_t at = 0; at < rows.size(); ++at) {
      mean[at % dim] += static_cast<double>(rows[at]);
    }
    std::vector<float> moved(rows.size());
    for (std::size_t at = 0; at < rows.size(); ++at) {
      moved[at] = static_cast<float>(static_cast<double>(rows[at]) -
                                     mean[at % dim] / static_cast<double>(rows.size() / dim));
    }
    return moved;
  }

  void cluster_segment(std::span<const float> rows, int dim, std::span<float> centroids) const {
    const auto d = static_cast<std::size_t>(dim);
    const std::size_t count = rows.size() / d;
    const std::size_t clusters_here = centroids.size() / d;
    for (std::size_t c = 0; c < clusters_here; ++c) {
      std::ranges::copy(rows.subspan(c * count / clusters_here * d, d), &centroids[c * d]);
    }
    clustering here{std::vector<std::uint32_t>(count), std::vector<std::uint32_t>(clusters_here)};
    for (int i = 0; i < iterations; ++i) {
      detail::assign(rows, d, centroids, std::vector(clusters_here, 0.0), here.cluster_of);
      detail::move_to_means(rows, dim, here, centroids);
      detail::normalise_rows(centroids, d);
    }
  }
};

}  // namespace instinfer::attention
