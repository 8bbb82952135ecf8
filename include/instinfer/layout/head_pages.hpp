#pragma once
// What one KV head has in the cache, for planning and kernels: tiles, token counts, page numbers,
// open pages.

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <type_traits>

#include "instinfer/core/index_set.hpp"
#include "instinfer/layout/concepts.hpp"

namespace instinfer::layout {

// A page's elements as a kernel sees them. Tokens [0, fill) are valid; a sealed page is full.
// Storage is an element type or a codec. Element (t, i) is at offset shape.offset(t, i), counted in
// elements.
template <class Storage>
struct tile_view {
  using codec = codec_of<Storage>;

  const typename codec::packed* data = nullptr;
  tile shape;
  std::uint32_t fill = 0;
  [[no_unique_address]] page_scale<codec> scale{};
  [[no_unique_address]] page_dims<codec> dims{};

  float operator()(std::uint32_t token, std::uint32_t dim) const {
    const float code = codec::value(data, shape.offset(token, dim));
    return dims.stored() ? dims.value(code, dim) : code * scale();
  }
};

// A page of a codec: coded if it is sealed, as appended if it is open.
template <class Codec>
struct page_view {
  const std::byte* bytes = nullptr;
  tile shape;
  std::uint32_t fill = 0;
  std::uint32_t page_bytes = 0;
  bool open = false;
  stream kind = stream::v_by_token;

  float operator()(std::uint32_t token, std::uint32_t dim) const {
    return open ? view_as<typename Codec::element>(*this)(token, dim)
                : view_as<Codec>(*this)(token, dim);
  }
};

// The page as a kernel for one storage type takes it. Open and sealed pages of a codec need
// different kernels.
template <class Storage, class Codec>
tile_view<Storage> view_as(const page_view<Codec>& page) {
  using codec = codec_of<Storage>;
  page_dims<codec> dims;
  if (page.kind == stream::k_by_token) {
    dims = {page.bytes, page.page_bytes, page.shape.dims};
  }
  return {reinterpret_cast<const typename codec::packed*>(page.bytes),
          page.shape,
          page.fill,
          {page.bytes, page.page_bytes},
          dims};
}
template <class Storage>
const tile_view<Storage>& view_as(const tile_view<Storage>& page) {
  return page;
}

// The view that kernels take of a page of a format.
template <class Format>
using view_of = std::conditional_t<Format::plain, tile_view<typename Format::storage>,
                                   page_view<typename Format::storage>>;

template <class Format>
view_of<Format> make_view(const std::byte* bytes, const tile& shape, std::uint32_t fill,
                          std::uint32_t page_bytes, bool open, stream kind) {
  if constexpr (Format::plain) {
    return {reinterpret_cast<const typename Format::element*>(bytes), shape, fill};
  } else {
    return {bytes, shape, fill, page_bytes, open, kind};
  }
}

// One stream of one head. Tiles [0, sealed_tokens / tile.tokens) are in flash; the next tile is the
// open page in the group buffer, which grows with its tokens. Entries of reclaimed tiles stay in
// the table as no_page, or are left out of it at its begin.
struct stream_pages {
  std::span<const page_id> table;   // [token_tile - first_tile, kv_heads, dim_tiles] of the layer
  std::uint32_t first_tile = 0;     // of the table
  const std::byte* open = nullptr;  // [dim_tiles, open_bytes]
  tile open_tile{};                 // the tile with the strides of open pages
  std::uint32_t open_bytes = 0;
  std::uint32_t sealed_tokens = 0;
  std::uint32_t dim_tiles = 0;
  std::uint32_t kv_heads = 1;
  std::uint32_t head = 0;

  page_id page(std::uint32_t token_tile, std::uint32_t dim_tile) const {
    return table[at(token_tile, dim_tile)];
  }
  // Prefetches the table entry of a sealed page: consecutive entries of one head are kv_heads
  // apart.
  void prefetch(std::uint32_t token_tile, std::uint32_t dim_tile) const {
    __builtin_prefetch(table.data() + at(token_tile, dim_tile));
  }

 private:
  std::size_t at(std::uint32_t token_tile, std::uint32_t dim_tile) const {
    return (std::size_t{token_tile - first_tile} * kv_heads + head) * dim_tiles + dim_tile;
  }
};

// Live tokens are [first, tokens); tokens before `first` are reclaimed.
struct head_pages {
  tiling tiles;
  std::uint32_t page_bytes = 0;
  entry_size entry;
  std::uint32_t first = 0;
  std::uint32_t tokens = 0;
  std::array<stream_pages, stream_count> streams;

  const stream_pages& of(stream s) const& { return streams[static_cast<std::size_t>(s)]; }
  stream_pages of(stream s) && { return streams[static_cast<std::size_t>(s)]; }

  // First token of the tile with the oldest live token.
  std::uint32_t first_of_tile(stream s) const {
    return first / tiles.of(s).tokens * tiles.of(s).tokens;
  }

  std::uint32_t fill(stream s, std::uint32_t token_tile) const {
    const std::uint32_t tile_tokens = tiles.of(s).tokens;
    return std::min(tile_tokens, tokens - token_tile * tile_tokens);
  }
};

}  // namespace instinfer::layout
