#pragma once
// Checks of the semantic part of a layout's contract for one KV format: tiles fit the page, are
// injective, and have whole groups.

#include <array>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/layout/concepts.hpp"

namespace instinfer::layout {

// Throws bad_argument with the stream's name and the rule that its tile breaks.
template <class Format, Layout L>
tiling checked_tiles(std::uint32_t context_tokens) {
  const tiling tiles = L::template tiles<Format>(context_tokens);
  using codec = typename Format::codec;
  using packed = typename Format::packed;
  require(L::page_bytes % alignof(packed) == 0, [&] {
    return "layout: a page of " + std::to_string(L::page_bytes) +
           " bytes is no whole number of elements of " + std::to_string(alignof(packed)) + " bytes";
  });
  const auto check = [&](bool ok, stream s, const std::string& rule) {
    require(ok,
            [&] { return std::string("layout: the tile of ") + stream_name(s) + " must " + rule; });
  };
  for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
    const tile& t = tiles.of(s);
    if (!t.stored()) {
      continue;
    }
    const std::uint32_t head_dim = s == stream::v_by_token ? Format::v_dim : Format::k_dim;
    check(t.dims > 0 && head_dim % t.dims == 0, s,
          "have dims that divide the head size " + std::to_string(head_dim) + ", has " +
              std::to_string(t.dims));
    check(
        t.elements() <= elements_in<codec>(L::page_bytes), s,
        "fit a page of " + std::to_string(L::page_bytes) + " bytes, has " +
            std::to_string(t.elements()) + " elements of " +
            (packed_elements<packed> == 1 ? "" : std::to_string(packed_elements<packed>) + " in ") +
            std::to_string(sizeof(packed)) + " bytes");
    const bool rows = t.dim_stride >= 1 && t.token_stride >= t.dims * t.dim_stride;
    const bool columns = t.token_stride >= 1 && t.dim_stride >= t.tokens * t.token_stride;
    check(rows || columns, s,
          "map (token, dim) to distinct offsets: one stride must clear the other index's extent");
  }
  check(tiles.v_by_token.stored(), stream::v_by_token, "be stored");
  check(tiles.k_by_token.stored() || tiles.k_by_dim.stored(), stream::k_by_token,
        "be stored, unless K is stored by dim");
  for (const stream s : {stream::k_by_token, stream::k_by_dim}) {
    check(tiles.of(s).tokens % tiles.v_by_token.tokens == 0, s,
          "span whole V tiles of " + std::to_string(tiles.v_by_token.tokens) + " tokens, has " +
              std::to_string(tiles.of(s).tokens));
  }
  return tiles;
}

}  // namespace instinfer::layout
