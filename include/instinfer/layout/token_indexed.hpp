#pragma once
// Token-indexed pages: one page holds a group of consecutive tokens with all their dims (InstInfer
// §IV-C).

#include <algorithm>

#include "instinfer/layout/concepts.hpp"

namespace instinfer::layout {

// Tokens of a group: as many as fit in a page; K and V groups have the same length. A page of 4 KiB
// with head size 128 holds the paper's 16 tokens in fp16, 31 in int8 (the scale needs some bytes),
// 56 in 4-bit groups.
template <class Format>
constexpr std::uint32_t group_tokens(std::uint32_t page_bytes) {
  return elements_in<typename Format::codec>(page_bytes, Format::k_dim) /
         static_cast<std::uint32_t>(std::max(Format::k_dim, Format::v_dim));
}

// The rows of `group` tokens a page, K and V in pages of their own. V of a latent format is the
// first v_dim dims of K's rows.
template <class Format>
constexpr tiling rows_by_token(std::uint32_t group) {
  tiling rows{.k_by_token = by_token(group, Format::k_dim),
              .k_by_dim = {},
              .v_by_token = by_token(group, Format::v_dim)};
  if (Format::latent) {
    rows.v_by_token.token_stride = rows.k_by_token.token_stride;
    rows.v_shares = sharing::entries;
  }
  return rows;
}

template <std::uint32_t PageBytes = 4096>
struct token_indexed {
  static constexpr std::uint32_t page_bytes = PageBytes;

  template <class Format>
  static constexpr tiling tiles(std::uint32_t /*context_tokens*/) {
    constexpr std::uint32_t group = group_tokens<Format>(PageBytes);
    static_assert(
        group > 0,
        "instinfer: a page must hold at least one token of a head, see layout/token_indexed.hpp");
    return rows_by_token<Format>(group);
  }
};

}  // namespace instinfer::layout
