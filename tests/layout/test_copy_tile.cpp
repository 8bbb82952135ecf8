// Copies of tiles: each element of a copy is where the tile's formula says, and nothing else
// changes.

#include <doctest/doctest.h>

#include <vector>

#include "instinfer/codec/element.hpp"
#include "instinfer/layout/copy_tile.hpp"

namespace instinfer::test_copy_tile {

using namespace layout;

namespace {

constexpr std::uint16_t untouched = 0xFFFF;

// The number that stands for element (t, i).
std::uint16_t number_of(std::uint32_t t, std::uint32_t i) {
  return static_cast<std::uint16_t>(t * 173 + i);
}

fp16 made(fp16, std::uint16_t x) { return {x}; }
fp32 made(fp32, std::uint16_t x) { return static_cast<float>(x); }

template <class E>
std::vector<E> filled(const tile& as) {
  std::vector<E> page(as.elements() + 5, made(E{}, untouched));
  for (std::uint32_t t = 0; t < as.tokens; ++t) {
    for (std::uint32_t i = 0; i < as.dims; ++i) {
      page[as.offset(t, i)] = made(E{}, number_of(t, i));
    }
  }
  return page;
}

// Copies `tokens` tokens and counts the elements that are not what they must be.
template <class E>
std::size_t wrong_after_copy(const tile& as, const tile& as_to, std::uint32_t tokens) {
  const std::vector<E> from = filled<E>(as);
  std::vector<E> to(as_to.elements() + 5, made(E{}, untouched));
  std::vector<E> wanted = to;
  for (std::uint32_t t = 0; t < tokens; ++t) {
    for (std::uint32_t i = 0; i < as.dims; ++i) {
      wanted[as_to.offset(t, i)] = made(E{}, number_of(t, i));
    }
  }
  copy_tile(from.data(), as, to.data(), as_to, tokens);
  std::size_t wrong = 0;
  for (std::size_t at = 0; at < to.size(); ++at) {
    wrong += to[at] == wanted[at] ? 0u : 1u;
  }
  return wrong;
}

}  // namespace

TEST_CASE_TEMPLATE("copies between rows, columns and other strides", E, fp16, fp32) {
  for (const std::uint32_t tokens : {1u, 15u, 16u, 33u, 70u}) {
    for (const std::uint32_t dims : {1u, 2u, 24u, 32u, 48u, 80u}) {
      const tile tiles[] = {
          by_token(tokens, dims),              // packed rows
          {tokens, dims, dims * 3 + 1, 1, 7},  // rows with room between them
          by_dim(tokens, dims),                // packed columns
          {tokens, dims, 1, tokens + 9, 3},    // columns with room between them
          {tokens, dims, 2, tokens * 2, 1},    // every second element
      };
      for (const tile& as : tiles) {
        for (const tile& as_to : tiles) {
          for (const std::uint32_t n : {tokens, tokens / 2}) {
            INFO(as.token_stride, " ", as.dim_stride, " to ", as_to.token_stride, " ",
                 as_to.dim_stride, ": ", n, " of ", tokens, " tokens, ", dims, " dims");
            CHECK(wrong_after_copy<E>(as, as_to, n) == 0);
          }
        }
      }
    }
  }
}

}  // namespace instinfer::test_copy_tile
