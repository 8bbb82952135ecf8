#pragma once
// The storage format of the tests of selection methods and summaries, and their rows as matrices.

#include <cstddef>
#include <cstdint>
#include <span>

#include "instinfer/core/shape.hpp"
#include "instinfer/reference/exact.hpp"

namespace instinfer::test {

using reference::matrix;

// fp32, so that what is stored is exactly what was given. A page holds 16 tokens of K or V.
using method_format = kv_format<fp32, 64>;
inline constexpr int page_tokens = 16;
inline constexpr std::uint64_t row_bytes = 64 * sizeof(float);

inline matrix matrix_of(std::span<const float> rows, int dim = 64) {
  matrix m(static_cast<Eigen::Index>(rows.size()) / dim, dim);
  for (Eigen::Index i = 0; i < m.size(); ++i) {
    m(i / dim, i % dim) = static_cast<double>(rows[static_cast<std::size_t>(i)]);
  }
  return m;
}

inline std::span<const float> rows_of(std::span<const float> x, std::size_t first,
                                      std::size_t count, std::size_t dim = 64) {
  return x.subspan(first * dim, count * dim);
}

}  // namespace instinfer::test
