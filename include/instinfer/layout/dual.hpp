#pragma once
// The dual layout of SparF: K by token and by dim, and V by token (InstInfer §IV-C); 1.5x the
// footprint of dense KV.

#include "instinfer/layout/dim_indexed.hpp"

namespace instinfer::layout {

// The pages of Rows, a layout of K and V by token, and a copy of K by dim.
template <class Rows, std::uint32_t Dims>
struct with_k_by_dim {
  static constexpr std::uint32_t page_bytes = Rows::page_bytes;

  template <class Format>
  static constexpr tiling tiles(std::uint32_t context_tokens) {
    tiling both = Rows::template tiles<Format>(context_tokens);
    both.k_by_dim = dim_tile<Format>(dim_indexed<page_bytes, Dims>::page_bytes, Dims,
                                     context_tokens, both.v_by_token.tokens);
    return both;
  }
};

template <std::uint32_t PageBytes = 4096, std::uint32_t Dims = dims_by_context>
struct dual : with_k_by_dim<token_indexed<PageBytes>, Dims> {};

}  // namespace instinfer::layout
