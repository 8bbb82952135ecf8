// Every layout: the paper's pages, and mappings that are injective and round-trip.

#include <doctest/doctest.h>

#include <set>

#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/layout/dual.hpp"
#include "instinfer/layout/validate.hpp"

namespace instinfer::test_layouts {

using namespace layout;

static_assert(Layout<token_indexed<>> && Layout<dim_indexed<>> && Layout<dual<>> &&
              Layout<dual<16384, 4>>);
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

TEST_CASE("mappings are injective, fit the page and round-trip, for every format") {
  check_format<kv_format<fp16, 64>>();
  check_format<kv_format<bf16, 80>>();
  check_format<kv_format<fp16, 96>>();
  check_format<kv_format<fp16, 128>>();
  check_format<kv_format<fp32, 128>>();
  check_format<kv_format<fp16, 192, 128>>();
  check_format<kv_format<fp32, 256>>();
}

}  // namespace instinfer::test_layouts
