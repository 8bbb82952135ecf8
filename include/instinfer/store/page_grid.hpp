#pragma once
// The pages of one stream (K by token, K by dim, V) of a layer: their number, size, order and
// channels.

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "instinfer/layout/concepts.hpp"

namespace instinfer::store {

// A tile of tokens is [kv_heads, dim_tiles] pages.
template <class Format>
struct page_grid {
  using element = typename Format::element;

  stream kind = stream::k_by_token;
  layout::tile tile;
  std::uint32_t page_bytes = 0;
  std::uint32_t kv_heads = 0;

  bool stored() const { return tile.stored(); }
  std::uint32_t dim_tiles() const {
    const int head_dim = kind == stream::v_by_token ? Format::v_dim : Format::k_dim;
    return stored() ? static_cast<std::uint32_t>(head_dim) / tile.dims : 0;
  }
  std::size_t pages_per_tile() const { return std::size_t{kv_heads} * dim_tiles(); }
  // Index of the page in a table [token_tile, kv_heads, dim_tiles].
  std::size_t at(std::uint32_t token_tile, std::uint32_t h, std::uint32_t dim_tile) const {
    return (std::size_t{token_tile} * kv_heads + h) * dim_tiles() + dim_tile;
  }

  // Bytes that a sealed page uses, and bytes of an open page, which holds the values as appended.
  std::size_t used_bytes() const {
    return Format::plain ? tile.elements() * sizeof(element) : page_bytes;
  }
  std::size_t open_bytes() const {
    return Format::plain ? page_bytes : tile.elements() * sizeof(element);
  }
  std::size_t open_offset(std::uint32_t h, std::uint32_t dim_tile) const {
    return at(0, h, dim_tile) * open_bytes();
  }

  // Sealed pages that hold tokens [first, have).
  std::uint64_t pages_holding(std::uint32_t first, std::uint32_t have) const {
    const std::uint64_t tiles = have / tile.tokens - std::min(first, have) / tile.tokens;
    return tiles * pages_per_tile();
  }

  // Channels are striped: the pages of one head in consecutive tiles, its dim tiles, and
  // neighbouring heads each go round all channels. V starts half a round after K.
  std::uint32_t channel_of(std::uint32_t token_tile, std::uint32_t h, std::uint32_t dim_tile,
                           std::uint32_t start_channel, std::uint32_t channels) const {
    return start_channel + token_tile + h + dim_tile +
           (kind == stream::v_by_token ? channels / 2 : 0);
  }
};

}  // namespace instinfer::store
