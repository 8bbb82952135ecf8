#pragma once
// Checks of the semantic part of a layout's contract for one KV format: tiles fit the page, are
// injective, and have whole groups.

#include <array>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/layout/concepts.hpp"

namespace instinfer::layout {

// What the rules for tiles depend on: head sizes, and what a page has room for.
struct page_room {
  std::uint32_t k_dim = 0;
  std::uint32_t v_dim = 0;
  std::uint32_t page_bytes = 0;
  std::uint64_t elements = 0;    // that fit a page
  std::uint64_t dim_scales = 0;  // elements that the scales of dims take from a page of K by token
  std::uint32_t packed_elements = 1;
  std::size_t packed_bytes = 0;
  std::size_t packed_align = 1;
  bool latent = false;

  // The elements that fit a page of stream s.
  std::uint64_t elements_of(const tiling& tiles, stream s) const {
    return s == stream::k_by_token || !tiles.has_pages(s) ? elements - dim_scales : elements;
  }
};

template <class Format>
constexpr page_room room_in_page(std::uint32_t page_bytes) {
  using packed = typename Format::packed;
  constexpr auto in = [](std::uint32_t bytes, std::uint32_t k_dims) {
    return elements_in<typename Format::codec>(bytes, k_dims);
  };
  return {.k_dim = Format::k_dim,
          .v_dim = Format::v_dim,
          .page_bytes = page_bytes,
          .elements = in(page_bytes, 0),
          .dim_scales = in(page_bytes, 0) - in(page_bytes, Format::k_dim),
          .packed_elements = packed_elements<packed>,
          .packed_bytes = sizeof(packed),
          .packed_align = alignof(packed),
          .latent = Format::latent};
}

// Whether the rows of two tiles with the same tokens have no element in common: one tile ends
// before the other begins, or each row of one ends before the row of the other begins.
constexpr bool rows_apart(const tile& a, const tile& b) {
  const auto row_end = [](const tile& t) {
    return t.origin + std::uint64_t{t.dims - 1} * t.dim_stride + 1;
  };
  const auto before = [&](const tile& x, const tile& y) {
    return x.elements() <= y.origin ||
           (x.token_stride == y.token_stride && row_end(x) <= y.origin &&
            row_end(y) <= x.origin + std::uint64_t{x.token_stride});
  };
  return before(a, b) || before(b, a);
}

// Throws bad_argument with the stream's name and the rule that its tile breaks.
inline void check_tiles(const tiling& tiles, const page_room& page) {
  require(page.page_bytes % page.packed_align == 0, [&] {
    return "layout: a page of " + std::to_string(page.page_bytes) +
           " bytes is no whole number of elements of " + std::to_string(page.packed_align) +
           " bytes";
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
    const std::uint32_t head_dim = s == stream::v_by_token ? page.v_dim : page.k_dim;
    check(t.dims > 0 && head_dim % t.dims == 0, s,
          "have dims that divide the head size " + std::to_string(head_dim) + ", has " +
              std::to_string(t.dims));
    check(t.elements() <= page.elements_of(tiles, s), s,
          "fit a page of " + std::to_string(page.page_bytes) + " bytes, has " +
              std::to_string(t.elements()) + " elements of " +
              (page.packed_elements == 1 ? "" : std::to_string(page.packed_elements) + " in ") +
              std::to_string(page.packed_bytes) + " bytes");
    const bool rows = t.dim_stride >= 1 && t.token_stride >= t.dims * t.dim_stride;
    const bool columns = t.token_stride >= 1 && t.dim_stride >= t.tokens * t.token_stride;
    check(rows || columns, s,
          "map (token, dim) to distinct offsets: one stride must clear the other index's extent");
  }
  check(tiles.v_by_token.stored(), stream::v_by_token, "be stored");
  check(page.latent == (tiles.v_shares == sharing::entries), stream::v_by_token,
        page.latent ? "share its entries with K, because V of a latent format is a part of K's rows"
                    : "not share its entries with K, because the format is not latent");
  if (const tile &k = tiles.k_by_token, &v = tiles.v_by_token; tiles.v_shares != sharing::nothing) {
    check(k.stored() && k.tokens == v.tokens && k.dims == page.k_dim && v.dims == page.v_dim &&
              in_rows_of_tokens(k) && in_rows_of_tokens(v),
          stream::v_by_token,
          "have whole rows of the same tokens as K by token, with which it shares pages");
    check(page.latent ? v.origin == k.origin && v.token_stride == k.token_stride &&
                            v.dim_stride == k.dim_stride
                      : rows_apart(k, v),
          stream::v_by_token,
          page.latent ? "be the first dims of K's rows"
                      : "have no element in common with K by token, with which it shares pages");
  }
  check(page.dim_scales == 0 || !tiles.k_by_token.stored() ||
            (tiles.k_by_token.dim_stride == 1 && in_rows_of_tokens(tiles.k_by_token)),
        stream::k_by_token, "have contiguous rows, because its codec has a scale for each dim");
  check(tiles.k_by_token.stored() || tiles.k_by_dim.stored(), stream::k_by_token,
        "be stored, unless K is stored by dim");
  for (const stream s : {stream::k_by_token, stream::k_by_dim}) {
    check(tiles.of(s).tokens % tiles.v_by_token.tokens == 0, s,
          "span whole V tiles of " + std::to_string(tiles.v_by_token.tokens) + " tokens, has " +
              std::to_string(tiles.of(s).tokens));
  }
}

// The tiles of a layout. Throws as check_tiles.
template <class Format, Layout L>
tiling checked_tiles(std::uint32_t context_tokens) {
  const tiling tiles = L::template tiles<Format>(context_tokens);
  check_tiles(tiles, room_in_page<Format>(L::page_bytes));
  return tiles;
}

}  // namespace instinfer::layout
