#pragma once
// What one KV head has in the cache, as planning and kernels see it: tiles, token counts, L2P entries, open pages.

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>

#include "instinfer/core/index_set.hpp"
#include "instinfer/layout/concepts.hpp"

namespace instinfer::layout {

// A page's elements as a kernel sees them. Tokens [0, fill) are valid; a sealed page is full.
template <Element E>
struct tile_view {
  const E* data = nullptr;  // element (t, i) at data[shape.offset(t, i)]
  tile shape;
  std::uint32_t fill = 0;
};

// One stream of one head. Tiles [0, sealed_tokens / tile.tokens) are in flash, the tile after them is the open page
// in the group buffer. Entries of reclaimed tiles stay in the table as no_page.
struct stream_pages {
  std::span<const page_id> table;   // [token_tile, kv_heads, dim_tiles] of the layer
  const std::byte* open = nullptr;  // [dim_tiles, page_bytes]
  std::uint32_t sealed_tokens = 0;
  std::uint32_t dim_tiles = 0;
  std::uint32_t kv_heads = 1;
  std::uint32_t head = 0;

  page_id page(std::uint32_t token_tile, std::uint32_t dim_tile) const {
    return table[(std::size_t{token_tile} * kv_heads + head) * dim_tiles + dim_tile];
  }
};

// Live tokens are [first, tokens); those before `first` were reclaimed.
struct head_pages {
  tiling tiles;
  std::uint32_t page_bytes = 0;
  std::uint32_t element_bytes = 0;
  std::uint32_t first = 0;
  std::uint32_t tokens = 0;
  std::array<stream_pages, stream_count> streams;

  const stream_pages& of(stream s) const& { return streams[static_cast<std::size_t>(s)]; }
  stream_pages of(stream s) && { return streams[static_cast<std::size_t>(s)]; }

  // First token of the tile that holds the oldest live token.
  std::uint32_t first_of_tile(stream s) const {
    return first / tiles.of(s).tokens * tiles.of(s).tokens;
  }

  std::uint32_t fill(stream s, std::uint32_t token_tile) const {
    const std::uint32_t tile_tokens = tiles.of(s).tokens;
    return std::min(tile_tokens, tokens - token_tile * tile_tokens);
  }
};

}  // namespace instinfer::layout
