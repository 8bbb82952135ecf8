#pragma once
// Inner products of many rows with many vectors, and the assign step of k-means.
// Products of two floats are exact in double, and sums are in dim order. So every compiler gives
// the same bits, with or without fused multiply-adds.

#include <algorithm>
#include <array>
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

// Inner products of all rows of a matrix with a few vectors. Rows are stored dim-major in tiles of
// `width` rows. The innermost loop runs over rows, so it vectorises without reordering any sum.
class dim_major_rows {
 public:
  static constexpr std::size_t width = 64;
  static constexpr std::size_t step = 4;  // dims per load and store of a sum

  dim_major_rows(std::span<const float> rows, std::size_t dim)
      : dims_{(dim + step - 1) / step * step}, count_{rows.size() / dim} {
    tiles_.resize((count_ + width - 1) / width * width * dims_);  // padded with zeros
    for (std::size_t row = 0; row < count_; ++row) {
      for (std::size_t i = 0; i < dim; ++i) {
        tiles_[row / width * width * dims_ + i * width + row % width] =
            static_cast<double>(rows[row * dim + i]);
      }
    }
  }

  // Calls f(row, products) in row order, with products[v] = vectors[v].row. Vectors are [Vectors,
  // dims()], padded with zeros.
  template <std::size_t Vectors, class F>
  void products(std::span<const double> vectors, F&& f) const {
    for (std::size_t first = 0; first < count_; first += width) {
      double sums[Vectors][width] = {};  // 2 KiB for 4 vectors: stays in the L1 cache
      for (std::size_t i = 0; i < dims_; i += step) {
        const double* t = &tiles_[first * dims_ + i * width];
        for (std::size_t v = 0; v < Vectors; ++v) {
          const double* x = &vectors[v * dims_ + i];
          const double x0 = x[0], x1 = x[1], x2 = x[2], x3 = x[3];
          for (std::size_t w = 0; w < width; ++w) {
            sums[v][w] = (((sums[v][w] + x0 * t[w]) + x1 * t[w + width]) + x2 * t[w + 2 * width]) +
                         x3 * t[w + 3 * width];
          }
        }
      }
      for (std::size_t w = 0; w < std::min(width, count_ - first); ++w) {
        std::array<double, Vectors> of_row;
        for (std::size_t v = 0; v < Vectors; ++v) {
          of_row[v] = sums[v][w];
        }
        f(first + w, of_row);
      }
    }
  }

  std::size_t dims() const { return dims_; }
  std::size_t count() const { return count_; }

 private:
  std::size_t dims_;
  std::size_t count_;
  std::vector<double> tiles_;  // [tiles, dims, width]; doubles that hold floats
};

// assigned[row] = argmax over centroids c of x.c + bias[c], ties to the lower c. With bias = -|c|^2
// / 2 this is the nearest centroid; with 0, the largest inner product. Returns whether anything
// changed.
inline bool assign(std::span<const float> rows, std::size_t dim, std::span<const float> centroids,
                   std::span<const double> bias, std::span<std::uint32_t> assigned) {
  constexpr std::size_t at_once = 4;  // rows that share each load of a centroid
  const dim_major_rows by_dim(centroids, dim);
  std::vector<double> some(at_once * by_dim.dims());
  bool changed = false;
  for (std::size_t first = 0; first < assigned.size(); first += at_once) {
    const std::size_t count = std::min(at_once, assigned.size() - first);
    for (std::size_t r = 0; r < count; ++r) {
      std::ranges::copy(rows.subspan((first + r) * dim, dim), &some[r * by_dim.dims()]);
    }
    std::array<double, at_once> best;
    best.fill(-std::numeric_limits<double>::infinity());
    std::array<std::uint32_t, at_once> best_at{};
    by_dim.products<at_once>(some, [&](std::size_t c, const auto& products) {
      for (std::size_t r = 0; r < at_once; ++r) {
        const double score = products[r] + bias[c];
        best_at[r] = score > best[r] ? static_cast<std::uint32_t>(c) : best_at[r];
        best[r] = score > best[r] ? score : best[r];
      }
    });
    for (std::size_t r = 0; r < count; ++r) {
      changed |= assigned[first + r] != best_at[r];
      assigned[first + r] = best_at[r];
    }
  }
  return changed;
}

}  // namespace instinfer::attention::detail
