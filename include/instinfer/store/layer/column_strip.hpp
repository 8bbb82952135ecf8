#pragma once
// Rows of one head on their way into pages of columns.

#include <cstddef>
#include <vector>

#include "instinfer/layout/copy_tile.hpp"

namespace instinfer::store {

// A page of columns takes 2 to 8 dims of many tokens: 4 to 16 bytes of each row. So that rows are
// read once, and not once for each of their pages, all dims of a head are transposed together.
template <class E>
class column_strip {
 public:
  // Whether `count` rows at once go through a strip on their way to pages of such tiles.
  static bool serves(const layout::tile& to, std::uint32_t count) {
    return to.token_stride == 1 && to.dims > 1 && count >= layout::line_elements<E>;
  }

  // Makes room for `count` rows. May throw std::bad_alloc.
  void reserve(const layout::tile& to, std::uint32_t dims, std::uint32_t count) {
    values_.resize(serves(to, count) ? dims * stride(count) : 0);
  }
  void free() noexcept { values_ = {}; }

  // Transposes `count` rows that are `row_stride` elements apart.
  void fill(const E* rows, std::size_t row_stride, std::uint32_t dims, std::uint32_t count) {
    layout::transpose(rows, row_stride, values_.data(), stride(count), count, dims);
  }
  // A tile of `tokens` of `count` rows and its first element: dims from `dim` on, tokens from
  // `first` on.
  layout::tile tile(std::uint32_t tokens, std::uint32_t dims, std::uint32_t count) const {
    return {tokens, dims, 1, static_cast<std::uint32_t>(stride(count))};
  }
  const E* at(std::uint32_t dim, std::uint32_t first, std::uint32_t count) const {
    return values_.data() + dim * stride(count) + first;
  }

 private:
  // Not a power of 2: columns then share few places of a cache.
  static std::size_t stride(std::uint32_t count) {
    return std::size_t{count} + layout::line_elements<E>;
  }

  std::vector<E> values_;  // [dims, stride]
};

}  // namespace instinfer::store
