#pragma once
// Rows of tokens on their way into the pages of a stream, and out of them.

#include <cstddef>
#include <cstdint>
#include <span>

#include "instinfer/layout/copy_tile.hpp"
#include "instinfer/layout/head_pages.hpp"
#include "instinfer/store/layer/page_grid.hpp"

namespace instinfer::store {

// Rows of tokens for a stream: [tokens, kv_heads, head_dim], and rows of V for its guest.
template <class E>
struct token_values {
  std::span<const E> own;
  std::span<const E> guest;
};

// Copies `count` rows of one head to the tokens from `to` on of a page, whose strides are those of
// `tile`: row `row` of x, and every kv_heads-th after it.
template <class Format>
void copy_rows(const page_grid<Format>& grid, typename Format::element* page,
               const layout::tile& tile, std::uint32_t to,
               const token_values<typename Format::element>& x, std::size_t row,
               std::uint32_t count, std::uint32_t dim_tile) {
  const auto copy = [&](layout::tile as, std::span<const typename Format::element> from,
                        std::uint32_t head_dim, std::uint32_t first_dim) {
    as.origin += to * as.token_stride;
    layout::copy_tile(from.data() + row * head_dim + first_dim,
                      {count, as.dims, grid.kv_heads * head_dim, 1}, page, as, count);
  };
  copy(tile, x.own, grid.dim_tiles() * tile.dims, dim_tile * tile.dims);
  if (grid.guest.stored()) {  // its rows have the same strides in open pages
    copy(grid.guest, x.guest, grid.guest.dims, 0);
  }
}

// Copies the entries of token t of a page to `row`, as stored.
template <class Format>
void copy_entries(const layout::view_of<Format>& page, std::uint32_t t,
                  std::span<typename Format::decoded::element> row) {
  if constexpr (Format::plain) {
    layout::tile entries = page.shape;
    entries.origin = page.shape.offset(t, 0);
    layout::copy_tile(page.data, entries, row.data(), layout::by_token(1, entries.dims), 1);
  } else {
    for (std::uint32_t i = 0; i < page.shape.dims; ++i) {
      row[i] = page(t, i);
    }
  }
}

}  // namespace instinfer::store
