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

}  // namespace instinfer::test_validate
