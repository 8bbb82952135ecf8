#pragma once
// The k-means clustering of keys that cluster methods share.
//
//   cosine_kmeans      Lloyd on normalised rows, from a k-means++ start        (Squeezed Attention)
//   segmented_kmeans   inner product on centred rows, first in each segment,
//                      then one assignment over all                                    (RetroInfer)
//
// Deterministic: the same bits on every compiler, ties to the lower cluster. Clustering 8192 rows
// of 128 dims into 512 clusters takes 0.18 s for 10 iterations on one core of an AVX-512 server, 30
// G multiply-adds a second; in double alone it took 0.45 s.

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
#include "instinfer/summaries/spread_rows.hpp"

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

inline void check_segments(const char* who, std::uint32_t clusters, std::uint32_t segments) {
  require(segments > 0 && segments <= std::max(1u, clusters), [&] {
    const std::string n = std::to_string(clusters);
    return std::string(who) + ": " + n + " clusters make 1 to " + n + " segments, got " +
           std::to_string(segments);
  });
}

// The rows and clusters of segment s of all. Throws bad_argument for fewer rows than clusters.
struct segment {
  std::uint32_t row, rows;
  std::uint32_t cluster, clusters;

  segment(const char* who, const clustering& all, std::uint32_t segments, std::size_t s) {
    const auto begin = [&](std::size_t n, std::size_t of) {
      return static_cast<std::uint32_t>(of * n / segments);
    };
    row = begin(all.cluster_of.size(), s);
    rows = begin(all.cluster_of.size(), s + 1) - row;
    cluster = begin(all.sizes.size(), s);
    clusters = begin(all.sizes.size(), s + 1) - cluster;
    require(clusters <= rows, [&] {
      return std::string(who) + ": segment " + std::to_string(s) + " has " + std::to_string(rows) +
             " rows, too few for its " + std::to_string(clusters) +
             " clusters; take fewer segments";
    });
  }
};

}  // namespace detail

// Segments of consecutive rows that are clustered apart, so that time grows with the number of rows
// and not with its square.
constexpr std::uint32_t segments_of(std::uint32_t rows, std::uint32_t rows_per_segment) {
  return std::max(1u, (rows + rows_per_segment / 2) / rows_per_segment);
}

// Cosine clustering of rows [rows, dim] (Squeezed Attention, arXiv 2411.09688). Rows are
// normalised, then Lloyd's iterations run from a k-means++ start until no row changes its cluster.
// A cluster that loses all rows keeps its centroid. With the centroids of one level as rows, it
// computes the next coarser level. With segments, each of them is clustered as if it were alone.
struct cosine_kmeans {
  std::uint32_t clusters = 1;
  std::uint64_t seed = 1;
  int max_iterations = 300;
  std::uint32_t segments = 1;

  // Throws bad_argument for more clusters than rows, rows but 0 clusters, values that are not
  // finite, incomplete rows, or a segment without a cluster or with fewer rows than clusters.
  clustering operator()(std::span<const float> rows, int dim) const {
    detail::check_rows("cosine_kmeans", rows, dim, clusters);
    detail::check_iterations("cosine_kmeans", max_iterations, 1);
    detail::check_segments("cosine_kmeans", clusters, segments);
    const auto d = static_cast<std::size_t>(dim);
    std::vector<float> unit(rows.begin(), rows.end());
    detail::normalise_rows(unit, d);
    clustering all{std::vector<std::uint32_t>(rows.size() / d),
                   std::vector<std::uint32_t>(clusters)};
    for (std::size_t s = 0; s < segments; ++s) {
      const detail::segment of("cosine_kmeans", all, segments, s);
      const clustering part =
          cluster_segment(std::span(unit).subspan(of.row * d, of.rows * d), dim, of.clusters);
      std::ranges::transform(part.cluster_of, all.cluster_of.begin() + of.row,
                             [&](std::uint32_t c) { return of.cluster + c; });
      all.iterations = std::max(all.iterations, part.iterations);
    }
    all.count_sizes();
    return all;
  }

 private:
  clustering cluster_segment(std::span<const float> unit, int dim, std::uint32_t count) const {
    const auto d = static_cast<std::size_t>(dim);
    std::vector<float> centroids = detail::spread_rows(unit, d, count, seed);
    std::vector<double> bias(count);
    clustering result{std::vector<std::uint32_t>(unit.size() / d, count),
                      std::vector<std::uint32_t>(count)};
    for (bool changed = !unit.empty(); changed && result.iterations < max_iterations;) {
      for (std::size_t c = 0; c < count; ++c) {  // x.c - |c|^2 / 2 is largest for the nearest c
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
    const std::uint32_t segments = segments_of(rows, rows_per_segment);
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
    detail::check_segments("segmented_kmeans", clusters, segments);
    const std::vector<float> moved =
        centred ? less_mean(rows, d) : std::vector(rows.begin(), rows.end());
    std::vector<float> centroids(clusters * d);
    clustering result{std::vector<std::uint32_t>(count), std::vector<std::uint32_t>(clusters)};
    for (std::size_t s = 0; s < segments; ++s) {
      const detail::segment of("segmented_kmeans", result, segments, s);
      cluster_segment(std::span(moved).subspan(of.row * d, of.rows * d), dim,
                      std::span(centroids).subspan(of.cluster * d, of.clusters * d));
    }
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
