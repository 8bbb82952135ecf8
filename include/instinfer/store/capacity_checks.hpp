#pragma once
// Checks before a cache changes: free pages, addresses for the tokens, at least one page per
// channel.

#include <cstdint>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/page_key.hpp"
#include "instinfer/core/shape.hpp"
#include "instinfer/layout/concepts.hpp"
#include "instinfer/store/extents.hpp"

namespace instinfer::store {

// Throws bad_argument if the capacity is less than one page per channel.
inline std::uint64_t pages_per_channel(const capacity& cap, std::uint32_t page_bytes,
                                       std::uint32_t channels) {
  const std::uint64_t pages = channels == 0 ? 0 : cap.bytes / page_bytes / channels;
  require(pages > 0, [&] {
    return "capacity: " + std::to_string(cap.bytes) + " bytes are less than one page of " +
           std::to_string(page_bytes) + " bytes on each of " + std::to_string(channels) +
           " channels";
  });
  return pages;
}

// Throws drive_full if too few pages are free. who() returns the start of the message: what needs
// the pages.
template <class Store, class Who>
void require_free(const Store& store, std::uint64_t pages, Who&& who) {
  require<drive_full>(pages <= store.free_pages(), [&] {
    return who() + std::to_string(pages) + " pages, the drive has " +
           std::to_string(store.free_pages()) + " free of " +
           std::to_string(store.capacity_pages());
  });
}

// Throws address_overflow unless the last page of `tokens` tokens of a layer has a logical address
// (InstInfer §IV-C).
template <class Format>
void require_addresses(const address_codec& address, const layout::tiling& tiles,
                       const model_shape& shape, sequence seq, std::uint32_t layer,
                       std::uint64_t tokens) {
  for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
    if (const layout::tile& tile = tiles.of(s); tile.stored() && tokens > 0) {
      const int head_dim = s == stream::v_by_token ? Format::v_dim : Format::k_dim;
      (void)address.encode(
          page_key{.sequence_slot = seq.slot,
                   .layer = layer,
                   .kv_head = static_cast<std::uint32_t>(shape.kv_heads - 1),
                   .kind = s,
                   .token_tile = static_cast<std::uint32_t>((tokens - 1) / tile.tokens),
                   .dim_tile = static_cast<std::uint32_t>(head_dim) / tile.dims - 1});
    }
  }
}

}  // namespace instinfer::store
