// A layout that breaks its contract is told which rule.

#include <doctest/doctest.h>

#include <string>

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

}  // namespace instinfer::test_validate
