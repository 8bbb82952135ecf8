#pragma once
// Layouts that no design uses.

#include "instinfer/layout/token_indexed.hpp"

namespace instinfer::test {

// K by token with the dims of a token far apart, V column by column: a mapping that no kernel has a
// special case for. Groups of codes run across its tokens and dims.
struct scattered {
  static constexpr std::uint32_t page_bytes = 4096;
  template <class Format>
  static constexpr layout::tiling tiles(std::uint32_t) {
    constexpr std::uint32_t tokens = layout::group_tokens<Format>(4096) / 2;
    return {.k_by_token = {tokens, Format::k_dim, 1, tokens},
            .k_by_dim = {},
            .v_by_token = {tokens, Format::v_dim / 2, 2, 2 * tokens}};
  }
};

// K pages of whole rows as long as two pages of V: under an open K page, one of V may be sealed.
struct long_k_rows {
  static constexpr std::uint32_t page_bytes = 4096;
  template <class Format>
  static constexpr layout::tiling tiles(std::uint32_t) {
    constexpr std::uint32_t tokens = layout::group_tokens<Format>(4096) / 2;
    return {.k_by_token = layout::by_token(2 * tokens, Format::k_dim),
            .k_by_dim = {},
            .v_by_token = layout::by_token(tokens, Format::v_dim)};
  }
};

}  // namespace instinfer::test
