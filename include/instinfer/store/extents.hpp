#pragma once
// How far a cache reaches: what a drive holds, what a layer holds, and what of a sequence is given up.

#include <cstdint>

#include "instinfer/core/address.hpp"

namespace instinfer::store {

// How much a drive holds, and what it is laid out for.
struct capacity {
  std::uint64_t bytes = std::uint64_t{256} << 20;
  std::uint32_t context_tokens =
      4096;  // expected length of a sequence: decides the dims of a dim-indexed page
  address_codec address{};
};

inline constexpr std::uint32_t all_layers = 0xFFFF'FFFFu;

// What reclaim gives up: the tokens at positions [0, tokens_before) in layers [first_layer, end_layer) of one sequence.
// Positions count from the sequence's first token on and do not move when tokens are reclaimed.
struct reclaim_range {
  std::uint32_t first_layer = 0;
  std::uint32_t end_layer = all_layers;  // the layer after the last one; by default the model's end
  std::uint32_t tokens_before = 0;
};

// What a layer of a sequence holds: live tokens [first, tokens), in so many sealed pages.
struct layer_extent {
  std::uint32_t first = 0;
  std::uint32_t tokens = 0;
  std::uint64_t pages = 0;
};

}  // namespace instinfer::store
