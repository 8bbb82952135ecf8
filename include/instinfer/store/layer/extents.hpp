#pragma once
// Extents of a cache: the size of a drive, the content of a layer, and the part of a sequence to
// reclaim.

#include <cstdint>

#include "instinfer/core/address.hpp"

namespace instinfer::store {

// The size of a drive, and the use that its layout is made for.
struct capacity {
  std::uint64_t bytes = std::uint64_t{256} << 20;
  // Expected length of a sequence: decides the number of dims in a dim-indexed page.
  std::uint32_t context_tokens = 4096;
  address_codec address{};
  // The group buffer: DRAM for tokens that do not fill a page yet, of all sequences and layers.
  std::uint64_t buffer_bytes = std::uint64_t{4} << 30;
};

inline constexpr std::uint32_t all_layers = 0xFFFF'FFFFu;

// What reclaim frees: the tokens at positions [0, tokens_before) in layers [first_layer, end_layer)
// of one sequence. Positions count from the first token of the sequence, and stay the same when
// tokens are reclaimed.
struct reclaim_range {
  std::uint32_t first_layer = 0;
  std::uint32_t end_layer = all_layers;  // one past the last layer; default: the model's end
  std::uint64_t tokens_before = 0;
};

// What truncate takes back: all but the first `tokens` positions in layers [first_layer, end_layer)
// of one sequence.
struct truncate_range {
  std::uint32_t first_layer = 0;
  std::uint32_t end_layer = all_layers;
  std::uint64_t tokens = 0;
};

// The content of a layer of a sequence: live tokens [first, tokens), counted from position `base`,
// and the number of their sealed pages.
struct layer_extent {
  std::uint32_t first = 0;
  std::uint32_t tokens = 0;
  std::uint64_t pages = 0;
  std::uint64_t base = 0;
};

}  // namespace instinfer::store
