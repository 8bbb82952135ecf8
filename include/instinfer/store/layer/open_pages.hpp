#pragma once
// The open pages of one stream in one layer of one sequence: the tokens that do not fill a tile
// yet, in the group buffer (InstInfer §IV-C).

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "instinfer/layout/copy_tile.hpp"
#include "instinfer/store/layer/page_grid.hpp"

namespace instinfer::store {

// They grow with their tokens, and hold the values as appended. A page with room for its whole tile
// has the layout of the sealed page; before, its columns are shorter. Pages never shrink: a
// sequence that has filled a tile keeps its memory for the next one.
template <class Format>
class open_pages {
 public:
  using element = typename Format::element;

  explicit open_pages(const page_grid<Format>& grid) : grid_{grid} {}

  // Makes room for `count` tokens after the first `at` of the tile, also for those of the tile in
  // which they end. May throw std::bad_alloc; the content does not change.
  void reserve(std::uint32_t at, std::uint32_t count) { grow(at, wanted(at, count)); }
  // bytes().size() after that.
  std::uint64_t bytes_after(std::uint32_t at, std::uint32_t count) const {
    return std::max<std::uint64_t>(bytes_.size(), grid_.open_bytes_of_all(wanted(at, count)));
  }

  // The same two, so that the first n tokens of any tile fit. The tile has `at` tokens.
  void reserve_first(std::uint32_t at, std::uint32_t n) { grow(at, n); }
  std::uint64_t bytes_with_first(std::uint32_t n) const {
    return std::max<std::uint64_t>(bytes_.size(), grid_.open_bytes_of_all(n));
  }

  // Empty pages for the first n tokens of a tile.
  void resize(std::uint32_t n) {
    room_ = grid_.open_room(n);
    page_bytes_ = grid_.open_bytes(room_);
    tile_ = layout::shortened(grid_.tile, room_);
    bytes_.assign(grid_.open_bytes_of_all(n), std::byte{});
  }

  // A copy of the first n tokens, as large as pages are that have grown to them.
  open_pages first(std::uint32_t n) const {
    open_pages copy(grid_);
    copy.resize(n);
    copy_tokens(copy, n);
    return copy;
  }

  // All pages: [kv_heads, dim_tiles, page_bytes()].
  std::span<std::byte> bytes() { return bytes_; }
  std::span<const std::byte> bytes() const { return bytes_; }
  std::size_t page_bytes() const { return page_bytes_; }
  // The tile with the strides of these pages.
  const layout::tile& tile() const { return tile_; }

  const std::byte* at(std::uint32_t h, std::uint32_t dim_tile) const {
    return bytes_.empty() ? nullptr : bytes_.data() + grid_.at(0, h, dim_tile) * page_bytes_;
  }
  element* page(std::uint32_t h, std::uint32_t dim_tile) {
    return reinterpret_cast<element*>(bytes_.data() + grid_.at(0, h, dim_tile) * page_bytes_);
  }

 private:
  // The tokens of a tile that must fit when `count` tokens come after the first `at`.
  std::uint32_t wanted(std::uint32_t at, std::uint32_t count) const {
    const std::uint32_t all = grid_.tile.tokens;
    return count < all - at           ? at + count
           : at > 0 || !Format::plain ? all  // sealed from here, as a codec's whole tiles are
                                      : count % all;
  }

  void grow(std::uint32_t have, std::uint32_t wanted) {
    if (grid_.open_room(wanted) > room_) {
      open_pages larger(grid_);
      larger.resize(wanted);
      copy_tokens(larger, have);
      *this = std::move(larger);
    }
  }
  void copy_tokens(open_pages& to, std::uint32_t n) const {
    for (std::size_t i = 0; n > 0 && i < grid_.pages_per_tile(); ++i) {
      const auto* page = reinterpret_cast<const element*>(bytes_.data() + i * page_bytes());
      auto* to_page = reinterpret_cast<element*>(to.bytes_.data() + i * to.page_bytes());
      layout::copy_tile(page, tile(), to_page, to.tile(), n);
      if (grid_.guest.stored()) {
        layout::copy_tile(page, grid_.guest, to_page, grid_.guest, n);
      }
    }
  }

  page_grid<Format> grid_;
  std::uint32_t room_ = 0;  // tokens
  std::size_t page_bytes_ = 0;
  layout::tile tile_;
  std::vector<std::byte> bytes_;
};

}  // namespace instinfer::store
