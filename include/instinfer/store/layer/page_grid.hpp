#pragma once
// The pages of one stream (K by token, K by dim, V) of a layer: their number, size, order and
// channels.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "instinfer/layout/concepts.hpp"

namespace instinfer::store {

// A tile of tokens is [kv_heads, dim_tiles] pages. `guest` is the tile of V if V lies in the pages
// of K by token (fused rows).
template <class Format>
struct page_grid {
  using element = typename Format::element;

  stream kind = stream::k_by_token;
  layout::tile tile;
  std::uint32_t page_bytes = 0;
  std::uint32_t kv_heads = 0;
  layout::tile guest{};
  std::uint32_t tiles_before = 0;  // tiles of the stream before tile number 0, modulo 2^32

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

  // Elements from the first of a page to the last that it uses.
  std::uint64_t elements() const { return std::max(tile.elements(), guest.elements()); }
  // Bytes that a sealed page uses.
  std::size_t used_bytes() const {
    return Format::plain ? elements() * sizeof(element) : page_bytes;
  }

  // The tokens that an open page with `n` tokens has room for: a power of 2, at least 4, or the
  // whole tile. So a page is moved a few times as it grows, and takes at most twice its tokens.
  std::uint32_t open_room(std::uint32_t n) const {
    const bool whole = !layout::in_rows_of_tokens(tile) && !layout::in_columns_of_dims(tile);
    return n == 0                ? 0
           : whole               ? tile.tokens
           : n > tile.tokens / 2 ? tile.tokens
                                 : std::min(tile.tokens, std::bit_ceil(std::max(n, 4u)));
  }
  // Bytes of an open page, which holds the values as appended. A full one that is sealed as it is
  // has the size of a page.
  std::size_t open_bytes(std::uint32_t room) const {
    return room == 0 ? 0
           : Format::plain && room == tile.tokens
               ? page_bytes
               : std::max(layout::shortened_elements(tile, room),
                          guest.stored() ? layout::shortened_elements(guest, room) : 0) *
                     sizeof(element);
  }
  // Bytes of the open pages of all heads with `n` tokens.
  std::size_t open_bytes_of_all(std::uint32_t n) const {
    return pages_per_tile() * open_bytes(open_room(n));
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
    return start_channel + tiles_before + token_tile + h + dim_tile +
           (kind == stream::v_by_token ? channels / 2 : 0);
  }
};

}  // namespace instinfer::store
