#pragma once
// Keys to cluster where a store holds none.

#include <vector>

#include "instinfer/core/drawn_numbers.hpp"
#include "instinfer/core/index_set.hpp"

namespace instinfer::attention {

// Few dims are enough for clusters of unlike sizes, and cost little to cluster.
inline constexpr int drawn_key_dims = 16;

// Normal keys [run, drawn_key_dims] of a head's tokens. They depend on the head and the run alone.
inline std::vector<float> drawn_keys(std::uint32_t head, index_run run) {
  drawn_numbers draw(std::uint64_t{head} << 32 | run.first);
  std::vector<float> keys(std::size_t{run.size()} * drawn_key_dims);
  for (float& x : keys) {
    x = static_cast<float>(draw.normal());
  }
  return keys;
}

}  // namespace instinfer::attention
