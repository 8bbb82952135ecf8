#pragma once
// The contract of a KV page layout: a mapping (token, dim) of one head's stream <-> (page, offset),
// like a layout in mdspan. A layout is a small tag; its tiles define everything else.
//
//   token_indexed<PageBytes>        K and V by token                     (FlexGen, dense InstInfer)
//   fused<PageBytes>                K and V of a token in one page       (for scattered tokens)
//   dim_indexed<PageBytes, Dims>    K by dim only, V by token            (for score-first methods)
//   dual<PageBytes, Dims>           K by token and by dim, V by token    (SparF; 1.5x footprint)
//   fused_dual<PageBytes, Dims>     fused, and K by dim                  (SparF on small pages)
//
// V of a latent format is a part of K's rows in every layout that has K by token.

#include <concepts>
#include <cstdint>

#include "instinfer/core/page_key.hpp"
#include "instinfer/core/shape.hpp"

namespace instinfer::layout {

// The part of a stream in one page: `tokens` consecutive tokens times `dims` consecutive dims.
// Element (t, i) of the tile is at element offset origin + t * token_stride + i * dim_stride of the
// page. tokens == 0: the stream is not stored.
struct tile {
  std::uint32_t tokens = 0;
  std::uint32_t dims = 0;
  std::uint32_t token_stride = 0;
  std::uint32_t dim_stride = 0;
  std::uint32_t origin = 0;

  constexpr std::uint32_t offset(std::uint32_t token, std::uint32_t dim) const {
    return origin + token * token_stride + dim * dim_stride;
  }
  // Elements from the first of the page to the last of the tile. 64 bits, because a tile that
  // breaks its contract may be large.
  constexpr std::uint64_t elements() const {
    return tokens == 0 ? 0
                       : origin + std::uint64_t{tokens - 1} * token_stride +
                             std::uint64_t{dims - 1} * dim_stride + 1;
  }
  constexpr bool stored() const { return tokens != 0; }
  friend constexpr bool operator==(const tile&, const tile&) = default;
};

// Row-major tile: the rows of consecutive tokens, [tokens, dims].
constexpr tile by_token(std::uint32_t tokens, std::uint32_t dims) {
  return {tokens, dims, dims, 1, 0};
}

// Column-major tile: the columns of consecutive dims, [dims, tokens].
constexpr tile by_dim(std::uint32_t tokens, std::uint32_t dims) {
  return {tokens, dims, 1, tokens, 0};
}

// Whether the tokens of a tile follow each other: whole rows, or whole columns of each dim.
constexpr bool in_rows_of_tokens(const tile& t) {
  return std::uint64_t{t.dims - 1} * t.dim_stride < t.token_stride;
}
constexpr bool in_columns_of_dims(const tile& t) {
  return std::uint64_t{t.tokens - 1} * t.token_stride < t.dim_stride;
}

// The same tile with room for its first `tokens` tokens only. Token numbers stay those of the whole
// tile. A tile of neither rows nor columns stays whole, and so does one with room for all: the
// columns of a codec may be longer than their tokens.
constexpr tile shortened(tile t, std::uint32_t tokens) {
  if (tokens < t.tokens && in_columns_of_dims(t) && !in_rows_of_tokens(t)) {
    t.dim_stride = tokens * t.token_stride;
  }
  return t;
}
// Elements from the first of the page to the last that the shortened tile has room for.
constexpr std::uint64_t shortened_elements(const tile& t, std::uint32_t tokens) {
  return in_rows_of_tokens(t) || in_columns_of_dims(t)
             ? t.origin + std::uint64_t{tokens - 1} * t.token_stride +
                   std::uint64_t{t.dims - 1} * shortened(t, tokens).dim_stride + 1
             : t.elements();
}

// The tiles of a head's three streams.
struct tiling {
  tile k_by_token;
  tile k_by_dim;
  tile v_by_token;
  // Unless this is `nothing`, the pages of K by token hold V, too: v_by_token is a tile of these.
  sharing v_shares = sharing::nothing;

  constexpr bool has_pages(stream s) const {
    return of(s).stored() && (s != stream::v_by_token || v_shares == sharing::nothing);
  }
  // The tile of fused rows of V in the pages of stream s; not stored if there are none.
  constexpr tile guest_of(stream s) const {
    return s == stream::k_by_token && v_shares == sharing::page ? v_by_token : tile{};
  }
  constexpr const tile& of(stream s) const {
    return s == stream::k_by_token ? k_by_token : s == stream::k_by_dim ? k_by_dim : v_by_token;
  }
};

// A layout names its page size, and its tiles for a KV format and an expected context length.
// Semantics, checked by validate.hpp: tiles fit the page and map injectively; dims divide the head
// size; V is stored, K at least once; a K tile spans whole V tiles, so that a K tile and its V
// pages can be folded together. V that shares pages with K has tiles of the same tokens; both have
// whole rows, which do not overlap, or V's rows are the first dims of K's (latent formats).
template <class L>
concept Layout = requires(std::uint32_t context_tokens) {
  { L::page_bytes } -> std::convertible_to<std::uint32_t>;
  { L::template tiles<kv_format<fp16, 128>>(context_tokens) } -> std::same_as<tiling>;
};

}  // namespace instinfer::layout
