#pragma once
// Device DRAM of the two L2P tables of a KV cache (InstInfer §IV-C): one for pages by token, one
// for pages by dim.

#include <cstdint>

#include "instinfer/core/page_key.hpp"

namespace instinfer::store {

struct l2p_footprint {
  std::uint64_t token_indexed_entries = 0;  // K by token and V by token share a table
  std::uint64_t dim_indexed_entries = 0;

  constexpr std::uint64_t entries() const { return token_indexed_entries + dim_indexed_entries; }
  // An entry is a page number. With an FTL, which maps page numbers again, each entry costs another
  // 4 bytes: pass 8.
  constexpr std::uint64_t token_indexed_bytes(std::uint64_t entry_bytes = sizeof(page_id)) const {
    return token_indexed_entries * entry_bytes;
  }
  constexpr std::uint64_t dim_indexed_bytes(std::uint64_t entry_bytes = sizeof(page_id)) const {
    return dim_indexed_entries * entry_bytes;
  }
  constexpr std::uint64_t bytes(std::uint64_t entry_bytes = sizeof(page_id)) const {
    return entries() * entry_bytes;
  }

  constexpr l2p_footprint& operator+=(const l2p_footprint& other) {
    token_indexed_entries += other.token_indexed_entries;
    dim_indexed_entries += other.dim_indexed_entries;
    return *this;
  }
};

// The tables of one layer of one sequence, kv_cache::at(seq, layer). Entries of reclaimed pages
// count: they stay in the table.
template <class LayerCache>
l2p_footprint l2p_of(const LayerCache& layer) {
  const auto head = layer.head(0);
  const auto entries = [&](stream s) {
    return head.tiles.has_pages(s) ? std::uint64_t{head.of(s).table.size()} : 0;
  };
  return {.token_indexed_entries = entries(stream::k_by_token) + entries(stream::v_by_token),
          .dim_indexed_entries = entries(stream::k_by_dim)};
}

// The tables of a whole sequence.
template <class Cache>
l2p_footprint l2p_of(const Cache& cache, sequence seq) {
  l2p_footprint total;
  for (int l = 0; l < cache.shape().layers; ++l) {
    total += l2p_of(cache.at(seq, l));
  }
  return total;
}

}  // namespace instinfer::store
