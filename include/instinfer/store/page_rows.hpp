#pragma once
// Rows of tokens on their way into the pages of a stream, and out of them.

#include <cstddef>
#include <cstdint>
#include <span>

#include "instinfer/layout/head_pages.hpp"
#include "instinfer/store/page_grid.hpp"

namespace instinfer::store {

// Rows of tokens for a stream: [tokens, kv_heads, head_dim], and rows of V for its guest.
template <class E>
struct token_values {
  std::span<const E> own;
  std::span<const E> guest;
};

// Copies row `row` of x to token `to` of a page, whose strides are those of `tile`.
template <class Format>
void copy_row(const page_grid<Format>& grid, typename Format::element* page,
              const layout::tile& tile, std::uint32_t to,
              const token_values<typename Format::element>& x, std::size_t row,
              std::uint32_t dim_tile) {
  const auto copy = [&](const layout::tile& as, const typename Format::element* from) {
    for (std::uint32_t i = 0; i < as.dims; ++i) {
      page[as.offset(to, i)] = from[i];
    }
  };
  const std::size_t head_dim = std::size_t{grid.dim_tiles()} * grid.tile.dims;
  copy(tile, x.own.data() + row * head_dim + std::size_t{dim_tile} * tile.dims);
  if (grid.guest.stored()) {  // its rows have the same strides in open pages
    copy(grid.guest, x.guest.data() + row * grid.guest.dims);
  }
}

// Copies the entries of token t of a page to `row`, as stored.
template <class Format>
void copy_entries(const layout::view_of<Format>& page, std::uint32_t t,
                  std::span<typename Format::decoded::element> row) {
  for (std::uint32_t i = 0; i < page.shape.dims; ++i) {
    if constexpr (Format::plain) {
      row[i] = page.data[page.shape.offset(t, i)];
    } else {
      row[i] = page(t, i);
    }
  }
}

}  // namespace instinfer::store
