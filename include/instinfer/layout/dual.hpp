#pragma once
// The dual layout of SparF: K by token and by dim, and V by token (InstInfer §IV-C); 1.5x the
// footprint of dense KV.

#include "instinfer/layout/dim_indexed.hpp"

namespace instinfer::layout {

template <std::uint32_t PageBytes = 4096, std::uint32_t Dims = dims_by_context>
struct dual {
  static constexpr std::uint32_t page_bytes = PageBytes;

  template <class Format>
  static constexpr tiling tiles(std::uint32_t context_tokens) {
    tiling both = token_indexed<PageBytes>::template tiles<Format>(context_tokens);
    both.k_by_dim = dim_tile<Format>(dim_indexed<PageBytes, Dims>::page_bytes, Dims, context_tokens,
                                     both.v_by_token.tokens);
    return both;
  }
};

}  // namespace instinfer::layout
