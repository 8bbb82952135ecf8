// A layout that breaks its contract is told which rule.

#include <doctest/doctest.h>

#include <string>

#include "instinfer/codec/dim_scales.hpp"
#include "instinfer/layout/dim_indexed.hpp"
#include "instinfer/layout/token_indexed.hpp"
#include "instinfer/layout/validate.hpp"

namespace instinfer::test_validate {

using namespace layout;

namespace {

struct overfull {
  static constexpr std::uint32_t page_bytes = 4096;
  template <class Format>
  static constexpr tiling tiles(std::uint32_t) {
    return {.k_by_token = by_token(17, Format::k_dim),
            .k_by_dim = {},
            .v_by_token = by_token(16, Format::v_dim)};
  }
};

struct without_v {
  static constexpr std::uint32_t page_bytes = 4096;
  template <class Format>
  static constexpr tiling tiles(std::uint32_t) {
    return {.k_by_token = by_token(16, Format::k_dim), .k_by_dim = {}, .v_by_token = {}};
  }
};

struct overlapping {
  static constexpr std::uint32_t page_bytes = 4096;
  template <class Format>
  static constexpr tiling tiles(std::uint32_t) {
    return {.k_by_token = {16, Format::k_dim, 1, 1},
            .k_by_dim = {},
            .v_by_token = by_token(16, Format::v_dim)};
  }
};

struct ragged {
  static constexpr std::uint32_t page_bytes = 4096;
  template <class Format>
  static constexpr tiling tiles(std::uint32_t) {
    return {
        .k_by_token = {}, .k_by_dim = by_dim(100, 8), .v_by_token = by_token(16, Format::v_dim)};
  }
};

template <class L>
std::string complaint() {
  try {
    (void)checked_tiles<kv_format<fp16, 128>, L>(4096);
  } catch (const bad_argument& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("a layout that breaks its contract is told which rule") {
  CHECK(
      complaint<overfull>() ==
      "layout: the tile of K by token must fit a page of 4096 bytes, has 2176 elements of 2 bytes");
  CHECK(complaint<without_v>() == "layout: the tile of V by token must be stored");
  CHECK(complaint<overlapping>().find("K by token must map (token, dim) to distinct offsets") !=
        std::string::npos);
  CHECK(complaint<ragged>().find("K by dim must span whole V tiles of 16 tokens, has 100") !=
        std::string::npos);
}

TEST_CASE("a page has room for codes, its scale, and the scales of K's dims") {
  const page_room plain = room_in_page<kv_format<fp16, 128>>(4096);
  CHECK(plain.elements == 2048);
  CHECK(plain.dim_scales == 0);
  const page_room coded = room_in_page<kv_format<int8_dims<fp16>, 128>>(4096);
  CHECK(coded.elements == 4096 - 4);
  CHECK(coded.dim_scales == 128 * 4);
  const tiling tiles{by_token(8, 128), {}, by_token(8, 128)};
  CHECK(coded.elements_of(tiles, stream::k_by_token) == 4096 - 4 - 512);
  CHECK(coded.elements_of(tiles, stream::v_by_token) == 4096 - 4);
  CHECK(page_room{}.elements == 0);
}

TEST_CASE("dims of a page: the fewest of 2, 4 and 8 with which a context fills four tiles") {
  for (const std::uint32_t context : {0u, 2047u, 2048u, 4095u, 4096u, 1'000'000u}) {
    const std::uint32_t dims = dims_per_page(2048, context);
    CHECK(dims == (context >= 4 * 1024 ? 2 : context >= 4 * 512 ? 4 : 8));
  }
}

TEST_CASE("strides: rows may be padded, columns too, and neither may reach into the next") {
  const page_room room{.k_dim = 4, .v_dim = 4, .page_bytes = 64, .elements = 32, .packed_bytes = 2};
  const auto refused = [&](const tile& k) {
    try {
      check_tiles({k, {}, by_token(4, 4)}, room);
    } catch (const bad_argument&) {
      return true;
    }
    return false;
  };
  CHECK(!refused({4, 4, 4, 1}));
  CHECK(!refused({4, 1, 1, 1}));  // a dim a page
  CHECK(!refused({4, 4, 5, 1}));
  CHECK(refused({4, 4, 3, 1}));
  CHECK(!refused({4, 4, 8, 2}));
  CHECK(refused({4, 4, 7, 2}));
  CHECK(!refused({4, 4, 1, 4}));
  CHECK(refused({4, 4, 1, 3}));
  CHECK(!refused({4, 2, 2, 8}));
  CHECK(refused({4, 2, 2, 7}));
  CHECK(refused({4, 4, 0, 1}));
  CHECK(refused({4, 4, 1, 0}));
}

TEST_CASE("shared pages: K and V of a page have whole rows, and no element in common") {
  page_room room{.k_dim = 4, .v_dim = 2, .page_bytes = 64, .elements = 32, .packed_bytes = 2};
  const auto complaint_of = [&](const tile& k, const tile& v, sharing shares) -> std::string {
    try {
      check_tiles({k, {}, v, shares}, room);
    } catch (const bad_argument& e) {
      return e.what();
    }
    return "none";
  };
  const std::string apart =
      "layout: the tile of V by token must have no element in common with K by token, with which it shares pages";
  const auto fused = [&](const tile& k, const tile& v) {
    return complaint_of(k, v, sharing::page);
  };
  // Side by side in either order, with a gap, and one tile after the other.
  CHECK(fused({4, 4, 6, 1, 0}, {4, 2, 6, 1, 4}) == "none");
  CHECK(fused({4, 4, 6, 1, 2}, {4, 2, 6, 1, 0}) == "none");
  CHECK(fused({4, 4, 8, 1, 0}, {4, 2, 8, 1, 6}) == "none");
  CHECK(fused({4, 4, 4, 1, 0}, {4, 2, 2, 1, 16}) == "none");
  CHECK(fused({4, 4, 6, 1, 0}, {4, 2, 6, 1, 3}) == apart);
  CHECK(fused({4, 4, 6, 1, 0}, {4, 2, 6, 1, 5}) == apart);  // the next K row begins at 6
  CHECK(fused({4, 4, 4, 1, 0}, {4, 2, 2, 1, 15}) == apart);
  CHECK(fused({4, 4, 6, 1, 0}, {4, 2, 7, 1, 4}) == apart);
  CHECK(fused({4, 4, 6, 1, 0}, {2, 2, 6, 1, 4}).find("whole rows of the same tokens") !=
        std::string::npos);
  CHECK(fused({3, 4, 8, 1, 0}, {3, 2, 8, 1, 7}).find("no element in common") != std::string::npos);
  CHECK(fused({3, 4, 8, 1, 2}, {3, 2, 8, 1, 8}) == "none");  // its end meets the next row's begin
  CHECK(fused({5, 4, 6, 1, 0}, {5, 2, 6, 1, 10}).find("must fit a page") != std::string::npos);

  const std::string latent_only =
      "layout: the tile of V by token must not share its entries with K, because the format is not latent";
  CHECK(complaint_of({4, 4, 4, 1}, {4, 2, 4, 1}, sharing::entries) == latent_only);
  room.latent = true;
  CHECK(complaint_of({4, 4, 4, 1}, {4, 2, 4, 1}, sharing::entries) == "none");
  CHECK(complaint_of({4, 4, 4, 1}, {4, 2, 4, 1, 1}, sharing::entries) ==
        "layout: the tile of V by token must be the first dims of K's rows");
  CHECK(complaint_of({4, 4, 4, 1}, {4, 2, 2, 1}, sharing::nothing).find("share its entries") !=
        std::string::npos);
}

TEST_CASE("scales of dims: rows of K by token are contiguous") {
  page_room room{.k_dim = 4, .v_dim = 4, .page_bytes = 64, .elements = 32, .packed_bytes = 2};
  room.dim_scales = 8;
  CHECK_NOTHROW(check_tiles({by_token(4, 4), {}, by_token(4, 4)}, room));
  CHECK_THROWS_WITH_AS(check_tiles({{3, 4, 8, 2}, {}, by_token(3, 4)}, room),
                       doctest::Contains("must have contiguous rows"), bad_argument);
}

TEST_CASE("a tile with room for some tokens: columns move together, other tiles stay") {
  const tile columns = by_dim(8, 4);
  CHECK(in_columns_of_dims(columns));
  CHECK(!in_columns_of_dims({8, 4, 1, 7}));  // the next dim begins on the last token
  CHECK(!in_rows_of_tokens(columns));
  CHECK(shortened(columns, 3) == tile{8, 4, 1, 3});
  CHECK(shortened(columns, 8) == columns);
  CHECK(shortened(by_token(8, 4), 3) == by_token(8, 4));
  CHECK(shortened_elements(columns, 3) == 3 * 4);
}

}  // namespace instinfer::test_validate
