// Every layout: the paper's pages, and mappings that are injective and round-trip.

#include <doctest/doctest.h>

#include <set>

#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/layout/dual.hpp"
#include "instinfer/layout/fused.hpp"
#include "instinfer/layout/validate.hpp"

namespace instinfer::test_layouts {

using namespace layout;

static_assert(Layout<token_indexed<>> && Layout<dim_indexed<>> && Layout<dual<>> &&
              Layout<dual<16384, 4>> && Layout<fused<>> && Layout<fused_dual<1024, 2>>);
static_assert(!Layout<int>);
static_assert(!tile{}.stored() && tile{} == tile{0, 0, 0, 0} && tile{}.elements() == 0);

namespace {

// Every (token, dim) of a head maps to a page and an offset inside it, injectively, and back.
template <class Format>
void check_round_trip(const tile& t, std::uint32_t head_dim, std::uint32_t page_bytes) {
  REQUIRE(t.stored());
  std::set<std::uint32_t> offsets;
  for (std::uint32_t token = 0; token < t.tokens; ++token) {
    for (std::uint32_t dim = 0; dim < t.dims; ++dim) {
      const std::uint32_t offset = t.offset(token, dim);
      CHECK((offset + 1) * Format::element_bytes <= page_bytes);
      CHECK(offsets.insert(offset).second);
      const bool rows = t.dim_stride == 1;
      CHECK((rows ? offset / t.dims : offset % t.tokens) == token);
      CHECK((rows ? offset % t.dims : offset / t.tokens) == dim);
    }
  }
  CHECK(head_dim % t.dims == 0);
}

template <class Format>
void check_format() {
  for (const std::uint32_t context : {1u, 1000u, 4096u, 131072u}) {
    const tiling small = checked_tiles<Format, dual<4096>>(context);
    check_round_trip<Format>(small.k_by_token, Format::k_dim, 4096);
    check_round_trip<Format>(small.k_by_dim, Format::k_dim, 4096);
    check_round_trip<Format>(small.v_by_token, Format::v_dim, 4096);
    const tiling large = checked_tiles<Format, dim_indexed<16384, 8>>(context);
    CHECK(!large.k_by_token.stored());
    check_round_trip<Format>(large.k_by_dim, Format::k_dim, 16384);
  }
}

}  // namespace

TEST_CASE("the paper's pages: 16 tokens of 128 dims, 2 to 8 dims of 1K to 256 tokens") {
  using paper = kv_format<fp16, 128>;
  CHECK(token_indexed<>::tiles<paper>(4096).k_by_token == by_token(16, 128));
  CHECK(dual<>::tiles<paper>(131072).k_by_dim == by_dim(1024, 2));
  CHECK(dual<>::tiles<paper>(2048).k_by_dim == by_dim(512, 4));
  CHECK(dual<>::tiles<paper>(1024).k_by_dim == by_dim(256, 8));
  CHECK(dual<4096, 8>::tiles<paper>(131072).k_by_dim == by_dim(256, 8));
  // 4-bit groups of 64 values in 36 bytes: 113 groups a page, by token 56 tokens of 128 dims. By
  // dim 14 groups for each of 8 dims: 16 whole tiles of V.
  using groups = kv_format<int4_groups<fp16>, 128>;
  CHECK(dual<>::tiles<groups>(2048).k_by_token == by_token(56, 128));
  CHECK(dual<>::tiles<groups>(2048).k_by_dim == tile{896, 8, 1, 896});
  // Of 2 dims 56 groups, 3584 tokens; each dim begins at a whole group.
  CHECK(dual<4096, 2>::tiles<groups>(2048).k_by_dim == tile{3584, 2, 1, 3584});
}

namespace {

// A row of the paper's format has 256 bytes.
template <std::uint32_t PageBytes>
void check_large_pages() {
  using paper = kv_format<fp16, 128>;
  constexpr std::uint32_t rows = PageBytes / 256;
  for (const std::uint32_t context : {32'768u, 1'048'576u}) {
    CHECK(checked_tiles<paper, token_indexed<PageBytes>>(context).v_by_token ==
          by_token(rows, 128));
    CHECK(checked_tiles<paper, fused<PageBytes>>(context).k_by_token.tokens == rows / 2);
    const tile by_dims = checked_tiles<paper, dual<PageBytes>>(context).k_by_dim;
    CHECK(by_dims.elements() == PageBytes / 2);
    CHECK(checked_tiles<paper, dim_indexed<PageBytes>>(context).k_by_dim == by_dims);
    CHECK(checked_tiles<paper, fused_dual<PageBytes>>(context).k_by_dim == by_dims);
  }
}

}  // namespace

TEST_CASE("every layout fills pages of 64 KiB, 256 KiB and 1 MiB") {
  check_large_pages<65'536>();
  check_large_pages<262'144>();
  check_large_pages<1'048'576>();
}

TEST_CASE("mappings are injective, fit the page and round-trip, for every format") {
  check_format<kv_format<fp16, 64>>();
  check_format<kv_format<bf16, 80>>();
  check_format<kv_format<fp16, 96>>();
  check_format<kv_format<fp16, 128>>();
  check_format<kv_format<fp32, 128>>();
  check_format<kv_format<fp16, 192, 128>>();
  check_format<kv_format<fp32, 256>>();
}

TEST_CASE("fused pages: row t is K of token t, then V of token t") {
  using paper = kv_format<fp16, 128, 64>;
  const tiling rows = checked_tiles<paper, fused<>>(4096);
  CHECK(rows.k_by_token == tile{10, 128, 192, 1, 0});
  CHECK(rows.v_by_token == tile{10, 64, 192, 1, 128});
  CHECK(rows.v_shares == sharing::page);
  CHECK(rows.has_pages(stream::k_by_token));
  CHECK(!rows.has_pages(stream::v_by_token));
  CHECK(rows.guest_of(stream::k_by_token) == rows.v_by_token);
  CHECK(!rows.guest_of(stream::k_by_dim).stored());
  CHECK(!rows.guest_of(stream::v_by_token).stored());
  CHECK(!checked_tiles<paper, dual<>>(4096).guest_of(stream::k_by_token).stored());
  std::set<std::uint32_t> offsets;
  for (std::uint32_t t = 0; t < 10; ++t) {
    for (std::uint32_t i = 0; i < 128; ++i) {
      CHECK(offsets.insert(rows.k_by_token.offset(t, i)).second);
    }
    for (std::uint32_t i = 0; i < 64; ++i) {
      CHECK(offsets.insert(rows.v_by_token.offset(t, i)).second);
    }
  }
  CHECK(*offsets.rbegin() == 1919);
  // With K by dim for SparF: its tiles have whole groups of 8 tokens of 128 + 128 dims.
  const tiling both = checked_tiles<kv_format<fp16, 128>, fused_dual<>>(131072);
  CHECK(both.k_by_token.tokens == 8);
  CHECK(both.k_by_dim == by_dim(1024, 2));
  // 8-bit codes and a scale: 15 tokens, so 2040 of 2046 tokens by dim.
  CHECK(checked_tiles<kv_format<int8_pages<>, 128>, fused_dual<>>(131072).k_by_dim.tokens == 2040);
}

TEST_CASE("latent pages: V is the first dims of K's rows, whatever the layout by token") {
  using mla = latent_format<bf16, 576, 512>;  // 2048 elements: 3 tokens
  for (const tiling& rows : {checked_tiles<mla, token_indexed<>>(4096),
                             checked_tiles<mla, fused<>>(4096), checked_tiles<mla, dual<>>(4096)}) {
    CHECK(rows.k_by_token == tile{3, 576, 576, 1, 0});
    CHECK(rows.v_by_token == tile{3, 512, 576, 1, 0});
    CHECK(rows.v_shares == sharing::entries);
    CHECK(!rows.guest_of(stream::k_by_token).stored());  // V has no rows of its own
  }
  CHECK(checked_tiles<mla, dual<>>(131072).k_by_dim.tokens == 1023);
  // A row of 30 values is stored as 32; V takes 16 of them.
  using small = latent_format<fp16, 30, 10>;
  CHECK(checked_tiles<small::padded, token_indexed<>>(4096).v_by_token == tile{64, 16, 32, 1, 0});
}

}  // namespace instinfer::test_layouts
