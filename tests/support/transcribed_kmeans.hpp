#pragma once
// The clusterings of summaries/kmeans.hpp by their definitions, in double, row by row.

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include "instinfer/summaries/kmeans.hpp"

namespace instinfer::test::transcribed {

using row = std::vector<double>;

inline std::vector<row> as_rows(std::span<const float> x, int dim) {
  std::vector<row> rows;
  for (std::size_t at = 0; at < x.size(); at += static_cast<std::size_t>(dim)) {
    rows.emplace_back(x.begin() + static_cast<std::ptrdiff_t>(at),
                      x.begin() + static_cast<std::ptrdiff_t>(at) + dim);
  }
  return rows;
}

inline double inner(const row& a, const row& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}
inline double squared_distance(const row& a, const row& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    sum += (a[i] - b[i]) * (a[i] - b[i]);
  }
  return sum;
}
inline row normalised(row x) {
  const double norm = std::sqrt(inner(x, x));
  for (double& value : x) {
    value = norm > 0 ? value / norm : value;
  }
  return x;
}
inline row mean_of(const std::vector<row>& rows, const std::vector<std::uint32_t>& cluster_of,
                   std::uint32_t cluster, const row& if_empty) {
  row sum(if_empty.size());
  int count = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    if (cluster_of[r] == cluster) {
      ++count;
      for (std::size_t i = 0; i < sum.size(); ++i) {
        sum[i] += rows[r][i];
      }
    }
  }
  for (double& value : sum) {
    value /= count;
  }
  return count > 0 ? sum : if_empty;
}

// Lloyd on normalised rows; its start draws with the same random numbers.
inline std::vector<std::uint32_t> cosine_clusters(std::span<const float> x, int dim,
                                                  const attention::cosine_kmeans& how) {
  std::vector<row> rows = as_rows(x, dim);
  for (row& r : rows) {
    r = normalised(r);
  }
  attention::detail::split_mix random{how.seed};
  std::vector<row> centroids;
  while (centroids.size() < how.clusters) {
    row weight;
    for (const row& r : rows) {
      double nearest = centroids.empty() ? 1.0 : std::numeric_limits<double>::infinity();
      for (const row& c : centroids) {
        nearest = std::min(nearest, squared_distance(r, c));
      }
      weight.push_back(nearest);
    }
    double target = random.uniform() * std::accumulate(weight.begin(), weight.end(), 0.0);
    std::size_t drawn = 0;
    while (weight[drawn] <= target) {
      target -= weight[drawn++];
    }
    centroids.push_back(rows[drawn]);
  }
  std::vector<std::uint32_t> cluster_of(rows.size(), how.clusters);
  for (int i = 0; i < how.max_iterations; ++i) {
    const auto before = cluster_of;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      std::uint32_t best = 0;
      for (std::uint32_t c = 1; c < how.clusters; ++c) {
        if (squared_distance(rows[r], centroids[c]) < squared_distance(rows[r], centroids[best])) {
          best = c;
        }
      }
      cluster_of[r] = best;
    }
    if (cluster_of == before) {
      break;
    }
    for (std::uint32_t c = 0; c < how.clusters; ++c) {
      centroids[c] = mean_of(rows, cluster_of, c, centroids[c]);
    }
  }
  return cluster_of;
}

inline std::uint32_t best_product(const row& x, const std::vector<row>& centroids) {
  std::uint32_t best = 0;
  for (std::uint32_t c = 1; c < centroids.size(); ++c) {
    best = inner(x, centroids[c]) > inner(x, centroids[best]) ? c : best;
  }
  return best;
}

inline std::vector<std::uint32_t> segmented_clusters(std::span<const float> x, int dim,
                                                     const attention::segmented_kmeans& how) {
  std::vector<row> rows = as_rows(x, dim);
  const std::size_t n = rows.size();
  if (how.centred) {
    const row mean = mean_of(rows, std::vector<std::uint32_t>(n, 0), 0, rows[0]);
    for (row& r : rows) {
      for (std::size_t i = 0; i < r.size(); ++i) {
        r[i] -= mean[i];
      }
    }
  }
  std::vector<row> all;
  for (std::size_t s = 0; s < how.segments; ++s) {
    const std::size_t first = s * n / how.segments;
    const std::vector<row> mine(
        rows.begin() + static_cast<std::ptrdiff_t>(first),
        rows.begin() + static_cast<std::ptrdiff_t>((s + 1) * n / how.segments));
    const std::size_t clusters =
        (s + 1) * how.clusters / how.segments - s * how.clusters / how.segments;
    std::vector<row> centroids;
    for (std::size_t c = 0; c < clusters; ++c) {
      centroids.push_back(mine[c * mine.size() / clusters]);
    }
    for (int i = 0; i < how.iterations; ++i) {
      std::vector<std::uint32_t> cluster_of;
      for (const row& r : mine) {
        cluster_of.push_back(best_product(r, centroids));
      }
      for (std::uint32_t c = 0; c < clusters; ++c) {
        centroids[c] = normalised(mean_of(mine, cluster_of, c, centroids[c]));
      }
    }
    all.insert(all.end(), centroids.begin(), centroids.end());
  }
  std::vector<std::uint32_t> cluster_of;
  for (const row& r : rows) {
    cluster_of.push_back(best_product(r, all));
  }
  return cluster_of;
}

}  // namespace instinfer::test::transcribed
