#pragma once
// The start of k-means: rows that are far from each other (k-means++).

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/summaries/row_products.hpp"

namespace instinfer::attention::detail {

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

// Weights to draw rows by, with sums of blocks: a draw reads the sums and one block.
class row_weights {
 public:
  static constexpr std::size_t block = 64;

  explicit row_weights(std::size_t rows) : weights_(rows), sums_((rows + block - 1) / block) {}

  double operator[](std::size_t row) const { return weights_[row]; }
  const double* data() const { return weights_.data(); }
  void set(std::size_t row, double weight) { weights_[row] = weight; }
  // After the weights of the block that begins at `first` were set.
  void sum(std::size_t first) {
    double& sum = sums_[first / block] = 0;
    for (std::size_t row = first; row < end_of(first); ++row) {
      sum += weights_[row];
    }
  }

  // The first row with which the sum of weights exceeds u of all, u in [0, 1). Row 0 if all weights
  // are 0.
  std::size_t draw(double u) const {
    double all = 0;
    for (const double sum : sums_) {
      all += sum;
    }
    const double target = u * all;
    double before = 0;
    double before_chosen = 0;
    std::size_t chosen = 0;  // the block; if rounding takes the sum below the target, the last one
    for (std::size_t b = 0; b < sums_.size() && before <= target; ++b) {
      if (sums_[b] > 0) {
        chosen = b;
        before_chosen = before;
      }
      before += sums_[b];
    }
    std::size_t drawn = chosen * block;
    double sum = before_chosen;
    for (std::size_t row = drawn; row < end_of(chosen * block) && sum <= target; ++row) {
      sum += weights_[row];
      drawn = weights_[row] > 0 ? row : drawn;
    }
    return drawn;
  }

 private:
  std::size_t end_of(std::size_t first) const { return std::min(first + block, weights_.size()); }

  std::vector<double> weights_;
  std::vector<double> sums_;
};

// k-means++ (Arthur, Vassilvitskii 2007): each next centroid is a random row, weighted by the
// square of its distance to the nearest centroid so far. If all rows left are copies of centroids,
// it is one of these copies, and its cluster will be empty. Distances are in double, and computed
// only of rows that fp32 does not show to be nearer to an older centroid. The rows [rows, dim] are
// no longer than 1.
inline std::vector<float> spread_rows(std::span<const float> rows, std::size_t dim,
                                      std::size_t clusters, std::uint64_t seed) {
  using tiles = dim_major_rows<float>;
  static_assert(tiles::width == row_weights::block);
  const tiles by_dim(rows, dim);
  const std::size_t count = by_dim.count();
  std::vector<double> square(count);
  row_weights weight(count);
  for (std::size_t row = 0; row < count; ++row) {
    square[row] = dot(&rows[row * dim], &rows[row * dim], dim);
    weight.set(row, 1.0);  // all rows have the same probability at first
  }
  for (std::size_t first = 0; first < count; first += tiles::width) {
    weight.sum(first);
  }
  std::vector<float> centroid(by_dim.dims());
  std::vector<float> centroids;
  centroids.reserve(clusters * dim);
  split_mix random{seed};
  const double error = fp32_error(dim, 1 + 1e-6, 1 + 1e-6);
  while (centroids.size() < clusters * dim) {
    const bool every = centroids.empty();
    const std::size_t drawn = weight.draw(random.uniform());
    const auto chosen = rows.subspan(drawn * dim, dim);
    centroids.insert(centroids.end(), chosen.begin(), chosen.end());
    std::ranges::copy(chosen, centroid.begin());
    for (std::size_t first = 0; first < count; first += tiles::width) {
      tiles::sums<1> product{};
      by_dim.add_products<1>(first, centroid, product);
      const std::size_t n = by_dim.rows_of(first);
      // Not nearer: |x|^2 + |c|^2 - 2 x.c >= weight, whatever the error of x.c.
      unsigned may_be_nearer = 0;
      for (std::size_t w = 0; w < n; ++w) {
        const double least =
            square[first + w] + square[drawn] - 2 * (static_cast<double>(product[0][w]) + error);
        may_be_nearer += least < weight[first + w] ? 1u : 0u;
      }
      if (may_be_nearer == 0 && !every) {
        continue;
      }
      for (std::size_t w = 0; w < n; ++w) {
        const std::size_t row = first + w;
        const double least =
            square[row] + square[drawn] - 2 * (static_cast<double>(product[0][w]) + error);
        if (every || least < weight[row]) {
          const double exact = std::max(
              0.0, square[row] + square[drawn] - 2.0 * dot(&rows[row * dim], chosen.data(), dim));
          weight.set(row, every ? exact : std::min(weight[row], exact));
        }
      }
      weight.sum(first);
    }
  }
  return centroids;
}

}  // namespace instinfer::attention::detail
