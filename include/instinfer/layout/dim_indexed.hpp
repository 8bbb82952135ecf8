#pragma once
// Dim-indexed pages of K: 2 to 8 dims share a page, each with a long run of tokens (InstInfer
// §IV-C, which calls dims "embedding channels"). V stays token-indexed.

#include "instinfer/layout/token_indexed.hpp"

namespace instinfer::layout {

inline constexpr std::uint32_t dims_by_context = 0;

// Dims per page for a context length, if the layout leaves the choice open. Few dims per page make
// the page filter sharp: a page is read if any of its dims is wanted. Many dims make tiles short,
// so fewer tokens of a context wait in the group buffer. The result is the smallest of 2, 4, 8 for
// which the context fills at least four tiles; otherwise 8. For 4 KiB of fp16: 8 dims x 256 tokens
// below 2K tokens, 4 x 512 from 2K, 2 x 1K from 4K.
constexpr std::uint32_t dims_per_page(std::uint32_t page_elements, std::uint32_t context_tokens) {
  for (const std::uint32_t dims : {2u, 4u}) {
    if (4 * (page_elements / dims) <= context_tokens) {
      return dims;
    }
  }
  return 8;
}

// The K tile of dim-indexed pages. It has a whole number of groups of `group` tokens, and each dim
// starts at a packed value.
template <class Format>
constexpr tile dim_tile(std::uint32_t page_bytes, std::uint32_t dims, std::uint32_t context_tokens,
                        std::uint32_t group) {
  constexpr std::uint32_t packed = packed_elements<typename Format::packed>;
  const std::uint32_t elements = elements_in<typename Format::codec>(page_bytes);
  const std::uint32_t chosen =
      dims == dims_by_context ? dims_per_page(elements, context_tokens) : dims;
  tile columns = by_dim(elements / chosen / packed * packed / group * group, chosen);
  columns.dim_stride = (columns.tokens + packed - 1) / packed * packed;
  return columns;
}

template <std::uint32_t PageBytes = 4096, std::uint32_t Dims = dims_by_context>
struct dim_indexed {
  static_assert(
      Dims == dims_by_context || Dims == 2 || Dims == 4 || Dims == 8,
      "instinfer: dim_indexed pages hold 2, 4 or 8 dims, or dims_by_context, see layout/dim_indexed.hpp");
  static constexpr std::uint32_t page_bytes = PageBytes;

  template <class Format>
  static constexpr tiling tiles(std::uint32_t context_tokens) {
    static_assert(
        group_tokens<Format>(PageBytes) > 0,
        "instinfer: a page must hold at least one token of a head, see layout/token_indexed.hpp");
    static_assert(
        !Format::latent,
        "instinfer: V of latent rows is a part of K by token, which dim_indexed does not store; use token_indexed or dual, see layout/concepts.hpp");
    constexpr std::uint32_t group = group_tokens<Format>(PageBytes);
    return {.k_by_token = {},
            .k_by_dim = dim_tile<Format>(PageBytes, Dims, context_tokens, group),
            .v_by_token = by_token(group, Format::v_dim)};
  }
};

}  // namespace instinfer::layout
