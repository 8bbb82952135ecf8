#pragma once
// Checks before a cache changes: free pages, addresses for the tokens, at least one page per
// channel.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/page_key.hpp"
#include "instinfer/core/shape.hpp"
#include "instinfer/layout/concepts.hpp"
#include "instinfer/store/layer/extents.hpp"

namespace instinfer::store {

// Throws bad_argument for a context of no token.
inline void require_context(const capacity& cap) {
  require(cap.context_tokens > 0,
          [] { return std::string("capacity: context_tokens must be positive, got 0"); });
}

// Throws bad_argument for less than one page per channel.
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

[[noreturn]] inline void throw_drive_full(const std::string& who, std::uint64_t pages,
                                          std::uint64_t free_pages, std::uint64_t all_pages) {
  throw drive_full(who + std::to_string(pages) + " pages, the drive has " +
                   std::to_string(free_pages) + " free of " + std::to_string(all_pages));
}

// Throws drive_full if too few pages are free. who() returns the start of the message: what needs
// the pages.
template <class Store, class Who>
void require_free(const Store& store, std::uint64_t pages, Who&& who) {
  if (pages > store.free_pages()) [[unlikely]] {
    throw_drive_full(who(), pages, store.free_pages(), store.capacity_pages());
  }
}

// Throws address_overflow unless the last page of `tokens` tokens of a layer has a logical address
// (InstInfer §IV-C).
inline void require_addresses(const address_codec& address, const layout::tiling& tiles,
                              const model_shape& shape, int k_dim, int v_dim, sequence seq,
                              std::uint32_t layer, std::uint64_t tokens) {
  for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
    if (const layout::tile& tile = tiles.of(s); tiles.has_pages(s) && tokens > 0) {
      const int head_dim = s == stream::v_by_token ? v_dim : k_dim;
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

// Throws unknown_sequence unless `open`.
inline void require_open(bool open, sequence seq) {
  require<unknown_sequence>(open, [&] {
    return "sequence " + std::to_string(seq.slot) + " (generation " +
           std::to_string(seq.generation) +
           ") is not open: it was never opened here, or was reclaimed";
  });
}

// Throws bad_argument.
inline void require_layer(int layer, int layers) {
  require(layer >= 0 && layer < layers, [&] {
    return "layer must be in [0, " + std::to_string(layers) + "), got " + std::to_string(layer);
  });
}
inline void require_layers(const char* who, std::uint32_t first, std::uint32_t end,
                           std::uint32_t layers) {
  require(first < end && end <= layers, [&] {
    return std::string(who) + ": layers [" + std::to_string(first) + ", " + std::to_string(end) +
           ") must be one layer or more within [0, " + std::to_string(layers) + ")";
  });
}

// What a file says of its layers. Throws bad_file unless there are as many as the cache has, and
// live tokens begin before their end.
inline void require_extents(std::span<const layer_extent> extents, int layers) {
  require<bad_file>(std::cmp_equal(extents.size(), layers), [&] {
    return "load: the file has " + std::to_string(extents.size()) + " layers, the cache " +
           std::to_string(layers);
  });
  for (std::size_t l = 0; l < extents.size(); ++l) {
    require<bad_file>(extents[l].first <= extents[l].tokens, [&] {
      return "load: layer " + std::to_string(l) + " of the file has live tokens from " +
             std::to_string(extents[l].first) + " on, of " + std::to_string(extents[l].tokens);
    });
  }
}
inline void require_base(const layer_extent& extent, std::uint64_t multiple, std::uint32_t layer) {
  require<bad_file>(extent.base == 0 || (multiple > 0 && extent.base % multiple == 0), [&] {
    return "load: layer " + std::to_string(layer) + " of the file counts tokens from position " +
           std::to_string(extent.base) + ", which is no multiple of " + std::to_string(multiple);
  });
}
inline void require_pages(const layer_extent& extent, std::uint64_t holding, std::uint32_t layer) {
  require<bad_file>(extent.pages == holding, [&] {
    return "load: layer " + std::to_string(layer) + " of the file has " +
           std::to_string(extent.pages) + " pages, its tokens lie in " + std::to_string(holding);
  });
}

// Throws bad_argument unless the tokens before `before` of a layer can be given up.
inline void require_reclaimable(std::uint32_t layer, std::uint64_t tokens, std::uint64_t before,
                                bool forgettable) {
  require(before <= tokens, [&] {
    return "reclaim: layer " + std::to_string(layer) + " has " + std::to_string(tokens) +
           " tokens, cannot give up " + std::to_string(before);
  });
  require(forgettable, [&] {
    return "reclaim: layer " + std::to_string(layer) + " has tokens before " +
           std::to_string(before) + " in an index that needs them; the sequence can go as a whole";
  });
}

// Throws bad_argument unless a layer with live tokens [first, have) can go back to `tokens`.
inline void require_truncatable(std::uint32_t layer, std::uint64_t first, std::uint64_t have,
                                std::uint64_t tokens) {
  require(first <= tokens && tokens <= have, [&] {
    return "truncate: layer " + std::to_string(layer) + " has tokens at positions [" +
           std::to_string(first) + ", " + std::to_string(have) + "), cannot keep the first " +
           std::to_string(tokens);
  });
}
[[noreturn]] inline void throw_not_truncatable(std::uint32_t layer, std::uint64_t tokens) {
  throw bad_argument("truncate: layer " + std::to_string(layer) + " cannot go back to " +
                     std::to_string(tokens) +
                     " tokens: a query has seen later ones and its method has learned from it, or "
                     "an index holds them");
}

// Throws address_overflow where tokens can no longer be counted.
inline constexpr std::uint64_t most_tokens = std::numeric_limits<std::int32_t>::max();
inline void require_countable(std::uint64_t tokens) {
  require<address_overflow>(tokens <= most_tokens, [&] {
    return "append: a sequence holds at most 2^31 - 1 tokens, would hold " + std::to_string(tokens);
  });
}

// The tokens of a layer that have numbers and addresses.
inline std::uint64_t numbered_tokens(const address_codec& address, const layout::tiling& tiles) {
  std::uint64_t most = most_tokens;
  for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
    if (const layout::tile& tile = tiles.of(s); tile.stored()) {
      const std::uint64_t length = std::min(address.token_length(), most);  // no overflow below
      most = std::min(most, length * tile.tokens);
    }
  }
  return most;
}

}  // namespace instinfer::store
