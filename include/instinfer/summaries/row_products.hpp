#pragma once
// Inner products of many rows with many vectors, and the assign step of k-means.
// Products of two floats are exact in double, and sums are in dim order. So every compiler gives
// the same bits, with or without fused multiply-adds. fp32 is faster by two to four times: it
// decides wherever its rounding error cannot change the result.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "instinfer/codec/unit_rules.hpp"

namespace instinfer::attention::detail {

inline double dot(const float* a, const float* b, std::size_t dim) {
  double sum = 0;
  for (std::size_t i = 0; i < dim; ++i) {
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return sum;
}

// |x|, or a little more.
inline double norm_bound(const float* x, std::size_t dim) {
  constexpr std::size_t lanes = 8;  // partial sums, so that the loop vectorises
  double squares[lanes] = {};
  std::size_t i = 0;
  for (; i + lanes <= dim; i += lanes) {
    for (std::size_t l = 0; l < lanes; ++l) {
      squares[l] += static_cast<double>(x[i + l]) * static_cast<double>(x[i + l]);
    }
  }
  double sum = dot(x + i, x + i, dim - i);
  for (const double square : squares) {
    sum += square;
  }
  return std::sqrt(sum) * (1 + 1e-6);
}

// A bound of the error of x.c + b in fp32, in any order, with or without fused multiply-adds, also
// on a processor that flushes denormals: a rounding error of each step.
inline double fp32_error(std::size_t dim, double x_norm, double c_norm, double b = 0) {
  const auto steps = static_cast<double>(dim + 4);
  return steps * (0x1p-24 * (x_norm * c_norm + b) + 0x1p-125 * (x_norm + c_norm + 1));
}

// Inner products of all rows of a matrix with a few vectors. Rows are stored dim-major in tiles of
// `width` rows. The innermost loop runs over rows, so it vectorises without reordering any sum.
// T is double, or float where rounding does no harm.
template <class T>
class dim_major_rows {
 public:
  static constexpr std::size_t width = 64;
  static constexpr std::size_t step = 8;  // dims per load and store of a sum

  // Sums of a tile: [Vectors][width].
  template <std::size_t Vectors>
  using sums = std::array<std::array<T, width>, Vectors>;

  dim_major_rows(std::span<const float> rows, std::size_t dim)
      : dims_{(dim + step - 1) / step * step}, count_{rows.size() / dim} {
    tiles_.resize((count_ + width - 1) / width * width * dims_);  // padded with zeros
    for (std::size_t row = 0; row < count_; ++row) {
      for (std::size_t i = 0; i < dim; ++i) {
        tiles_[row / width * width * dims_ + i * width + row % width] =
            static_cast<T>(rows[row * dim + i]);
      }
    }
  }

  // Adds vectors[v].row to to[v][row - first] for the rows of the tile that begins at `first`.
  // Vectors are [Vectors, dims()], padded with zeros.
  template <std::size_t Vectors>
  void add_products(std::size_t first, std::span<const T> vectors, sums<Vectors>& to) const {
    for (std::size_t i = 0; i < dims_; i += step) {
      const T* t = &tiles_[first * dims_ + i * width];
      for (std::size_t v = 0; v < Vectors; ++v) {
        const T* x = &vectors[v * dims_ + i];
        const T x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
        const T x4 = x[4], x5 = x[5], x6 = x[6], x7 = x[7];
        T* sum = to[v].data();
        for (std::size_t w = 0; w < width; ++w) {
          T s = sum[w];
          s = (((s + x0 * t[w]) + x1 * t[w + width]) + x2 * t[w + 2 * width]) +
              x3 * t[w + 3 * width];
          s = (((s + x4 * t[w + 4 * width]) + x5 * t[w + 5 * width]) + x6 * t[w + 6 * width]) +
              x7 * t[w + 7 * width];
          sum[w] = s;
        }
      }
    }
  }

  // Rows of the tile that begins at `first`.
  std::size_t rows_of(std::size_t first) const { return std::min(width, count_ - first); }
  std::size_t dims() const { return dims_; }
  std::size_t count() const { return count_; }

 private:
  std::size_t dims_;
  std::size_t count_;
  std::vector<T> tiles_;  // [tiles, dims, width]
};

// The argmax over centroids c of x.c + bias[c], ties to the lower c, by sums in double.
class exact_assign {
 public:
  exact_assign(std::span<const float> centroids, std::size_t dim, std::span<const double> bias)
      : by_dim_{centroids, dim}, dim_{dim}, bias_{bias}, some_(at_once * by_dim_.dims()) {}

  // assigned[row] for each of the given rows.
  void operator()(std::span<const float> rows, std::span<const std::uint32_t> which,
                  std::span<std::uint32_t> assigned) {
    for (std::size_t first = 0; first < which.size(); first += at_once) {
      const auto some = which.subspan(first, std::min(at_once, which.size() - first));
      for (std::size_t r = 0; r < some.size(); ++r) {
        std::ranges::copy(rows.subspan(some[r] * dim_, dim_), &some_[r * by_dim_.dims()]);
      }
      std::array<double, at_once> best;
      best.fill(-std::numeric_limits<double>::infinity());
      std::array<std::uint32_t, at_once> best_at{};
      for (std::size_t tile = 0; tile < by_dim_.count(); tile += by_dim_.width) {
        dim_major_rows<double>::sums<at_once> sums{};
        by_dim_.add_products<at_once>(tile, some_, sums);
        for (std::size_t w = 0; w < by_dim_.rows_of(tile); ++w) {
          for (std::size_t r = 0; r < at_once; ++r) {
            const double score = sums[r][w] + bias_[tile + w];
            best_at[r] = score > best[r] ? static_cast<std::uint32_t>(tile + w) : best_at[r];
            best[r] = score > best[r] ? score : best[r];
          }
        }
      }
      for (std::size_t r = 0; r < some.size(); ++r) {
        assigned[some[r]] = best_at[r];
      }
    }
  }

 private:
  static constexpr std::size_t at_once = 4;  // rows that share each load of a centroid

  dim_major_rows<double> by_dim_;
  std::size_t dim_;
  std::span<const double> bias_;
  std::vector<double> some_;
};

// The same in fp32, for the rows whose best score is ahead of the second by more than both can be
// wrong. Gives the rows that are not settled so.
class fp32_assign {
 public:
  fp32_assign(std::span<const float> centroids, std::size_t dim, std::span<const double> bias)
      : by_dim_{centroids, dim},
        dim_{dim},
        some_(at_once * by_dim_.dims()),
        bias_((by_dim_.count() + width - 1) / width * width,
              -std::numeric_limits<float>::infinity()) {  // of the rows that fill up the last tile
    std::ranges::transform(bias, bias_.begin(), [](double b) { return static_cast<float>(b); });
    for (std::size_t c = 0; c < by_dim_.count(); ++c) {
      largest_norm_ = std::max(largest_norm_, norm_bound(&centroids[c * dim], dim));
      largest_bias_ = std::max(largest_bias_, std::abs(bias[c]));
    }
  }

  // Returns whether any assigned[row] has changed.
  bool operator()(std::span<const float> rows, std::span<std::uint32_t> assigned,
                  std::vector<std::uint32_t>& unsettled) {
    bool changed = false;
    for (std::size_t first = 0; first < assigned.size(); first += at_once) {
      const std::size_t count = std::min(at_once, assigned.size() - first);
      for (std::size_t r = 0; r < count; ++r) {
        std::ranges::copy(rows.subspan((first + r) * dim_, dim_), &some_[r * by_dim_.dims()]);
      }
      score();
      for (std::size_t r = 0; r < count; ++r) {
        const winner of = winner_of(r);
        const double norm = norm_bound(&rows[(first + r) * dim_], dim_);
        const double sizes = norm * largest_norm_ + largest_bias_;
        const double error = fp32_error(dim_, norm, largest_norm_, largest_bias_);
        const auto row = static_cast<std::uint32_t>(first + r);
        if (sizes < 1e38 &&
            static_cast<double>(of.best) - static_cast<double>(of.second) > 2 * error) {
          changed |= assigned[row] != of.centroid;
          assigned[row] = of.centroid;
        } else {
          unsettled.push_back(row);
        }
      }
    }
    return changed;
  }

 private:
  static constexpr std::size_t at_once = 8;
  static constexpr std::size_t width = dim_major_rows<float>::width;
  using lanes = dim_major_rows<float>::sums<at_once>;

  struct winner {
    float best;
    float second;
    std::uint32_t centroid;
  };

  // The best two scores of each row among the centroids w, w + width, w + 2 width ..., and the tile
  // of the best.
  void score() {
    for (std::size_t r = 0; r < at_once; ++r) {
      best_[r].fill(-std::numeric_limits<float>::infinity());
      second_[r].fill(-std::numeric_limits<float>::infinity());
      at_[r].fill(0);
    }
    for (std::size_t tile = 0; tile < by_dim_.count(); tile += width) {
      lanes sums;
      for (auto& sum : sums) {
        std::copy_n(&bias_[tile], width, sum.begin());
      }
      by_dim_.add_products<at_once>(tile, some_, sums);
      for (std::size_t r = 0; r < at_once; ++r) {
        for (std::size_t w = 0; w < width; ++w) {
          const float s = sums[r][w];
          const float best = best_[r][w];
          const float second = second_[r][w];
          second_[r][w] = s > best ? best : s > second ? s : second;
          at_[r][w] = s > best ? static_cast<std::uint32_t>(tile) : at_[r][w];
          best_[r][w] = s > best ? s : best;
        }
      }
    }
  }

  winner winner_of(std::size_t r) const {
    winner of{best_[r][0], second_[r][0], at_[r][0]};
    for (std::size_t w = 1; w < width; ++w) {
      const float s = best_[r][w];
      of.second = s > of.best ? std::max(of.best, second_[r][w]) : std::max(of.second, s);
      of.centroid = s > of.best ? at_[r][w] + static_cast<std::uint32_t>(w) : of.centroid;
      of.best = std::max(of.best, s);
    }
    return of;
  }

  dim_major_rows<float> by_dim_;
  std::size_t dim_;
  std::vector<float> some_;
  std::vector<float> bias_;  // [tiles, width]
  double largest_norm_ = 0;
  double largest_bias_ = 0;
  lanes best_, second_;
  std::array<std::array<std::uint32_t, width>, at_once> at_;
};

// assigned[row] = argmax over centroids c of x.c + bias[c], ties to the lower c. With bias = -|c|^2
// / 2 this is the nearest centroid; with 0, the largest inner product. Returns whether anything
// changed.
inline bool assign(std::span<const float> rows, std::size_t dim, std::span<const float> centroids,
                   std::span<const double> bias, std::span<std::uint32_t> assigned) {
  std::vector<std::uint32_t> unsettled;
  bool changed = fp32_assign(centroids, dim, bias)(rows, assigned, unsettled);
  if (!unsettled.empty()) {
    std::vector<std::uint32_t> exact(assigned.begin(), assigned.end());
    exact_assign(centroids, dim, bias)(rows, unsettled, exact);
    changed |= !std::ranges::equal(exact, assigned);
    std::ranges::copy(exact, assigned.begin());
  }
  return changed;
}

}  // namespace instinfer::attention::detail
