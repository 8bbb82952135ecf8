#pragma once
// Fused rows: K and V of a token lie in one page. A method that folds scattered tokens then reads
// one page where separate rows take two, and a page of separate rows has twice the tokens.

#include "instinfer/layout/dual.hpp"

namespace instinfer::layout {

// Tokens of a page of fused rows. A page of 4 KiB with head size 128 in fp16 has 8.
template <class Format>
constexpr std::uint32_t fused_group_tokens(std::uint32_t page_bytes) {
  return elements_in<typename Format::codec>(page_bytes, Format::k_dim) /
         static_cast<std::uint32_t>(Format::k_dim + (Format::latent ? 0 : Format::v_dim));
}

// Row t of a page is K of token t, then V of token t. Latent rows are fused as they are.
template <std::uint32_t PageBytes = 4096>
struct fused {
  static constexpr std::uint32_t page_bytes = PageBytes;

  template <class Format>
  static constexpr tiling tiles(std::uint32_t /*context_tokens*/) {
    constexpr std::uint32_t group = fused_group_tokens<Format>(PageBytes);
    static_assert(
        group > 0,
        "instinfer: a page must hold K and V of at least one token of a head, see layout/fused.hpp");
    tiling rows = rows_by_token<Format>(group);
    if (!Format::latent) {
      rows.k_by_token.token_stride = rows.v_by_token.token_stride = Format::k_dim + Format::v_dim;
      rows.v_by_token.origin = Format::k_dim;
      rows.v_shares = sharing::page;
    }
    return rows;
  }
};

// The same with a copy of K by dim, for SparF.
template <std::uint32_t PageBytes = 4096, std::uint32_t Dims = dims_by_context>
struct fused_dual : with_k_by_dim<fused<PageBytes>, Dims> {};

}  // namespace instinfer::layout
