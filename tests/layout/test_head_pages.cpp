// What a head has in the cache: page numbers, fills, and views of sealed and open pages.

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "instinfer/codec/dim_scales.hpp"
#include "instinfer/layout/page_reader.hpp"

namespace instinfer::test_head_pages {

using namespace layout;

namespace {

// Pages of 64 bytes; page n begins at n * 64.
struct array_store {
  static constexpr bool holds_data = true;
  std::vector<std::byte> bytes = std::vector<std::byte>(64 * 8);
  std::span<const std::byte> view(page_id page) const {
    return std::span(bytes).subspan(64 * static_cast<std::size_t>(page), 64);
  }
};
struct empty_store {
  static constexpr bool holds_data = false;
};

}  // namespace

TEST_CASE("page numbers lie in the layer's table by tile, head and dim tile") {
  std::vector<page_id> table;
  for (std::uint32_t i = 0; i < 3 * 4 * 2; ++i) {
    table.push_back(page_id{100 + i});
  }
  CHECK(stream_pages{.table = table, .dim_tiles = 1}.page(5, 0) == page_id{105});  // of one head
  CHECK(stream_pages{}.dim_tiles == 0);
  CHECK(stream_pages{}.open_bytes == 0);
  for (std::uint32_t head = 0; head < 4; ++head) {
    const stream_pages pages{.table = table, .dim_tiles = 2, .kv_heads = 4, .head = head};
    stream_pages later = pages;
    later.first_tile = 7;  // tiles before it are gone from the table
    for (std::uint32_t tile = 0; tile < 3; ++tile) {
      for (std::uint32_t dims = 0; dims < 2; ++dims) {
        CHECK(pages.page(tile, dims) == page_id{100 + (tile * 4 + head) * 2 + dims});
        CHECK(later.page(tile + 7, dims) == pages.page(tile, dims));
      }
    }
  }
}

TEST_CASE("tiles: where the oldest live token's begins, and how many tokens each holds") {
  head_pages head;
  CHECK(head.tokens == 0);
  CHECK(head.first == 0);
  head.tiles = {by_token(4, 16), by_dim(10, 2), by_token(4, 16)};
  head.first = 13;
  head.tokens = 26;
  CHECK(head.first_of_tile(stream::k_by_token) == 12);
  CHECK(head.first_of_tile(stream::k_by_dim) == 10);
  CHECK(head.fill(stream::k_by_token, 5) == 4);
  CHECK(head.fill(stream::k_by_token, 6) == 2);
  CHECK(head.fill(stream::k_by_dim, 1) == 10);
  CHECK(head.fill(stream::k_by_dim, 2) == 6);
}

TEST_CASE(
    "a reader gives the elements of sealed pages from the store, of open ones from the buffer") {
  using format = kv_format<fp32, 16>;
  array_store store;
  std::vector<float> values(16);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<float>(i);
  }
  std::memcpy(store.bytes.data() + 3 * 64, values.data(), 64);
  std::vector<float> open(32);
  open[16 + 5] = 9;  // the second dim tile's page
  head_pages head;
  head.tiles.v_by_token = by_token(2, 8);
  head.page_bytes = 64;
  head.tokens = 3;
  head.streams[2] = {.table = {},
                     .open = reinterpret_cast<const std::byte*>(open.data()),
                     .open_tile = by_token(2, 8),
                     .open_bytes = 64,
                     .sealed_tokens = 2,
                     .dim_tiles = 2};
  const page_reader<format> read(store, head);
  const auto sealed = read(
      {.kind = stream::v_by_token, .token_tile = 0, .page = page_id{3}, .tokens = {}, .dims = {}});
  CHECK(sealed.fill == 2);
  for (std::uint32_t t = 0; t < 2; ++t) {
    for (std::uint32_t i = 0; i < 8; ++i) {
      CHECK(sealed(t, i) == static_cast<float>(t * 8 + i));
    }
  }
  const auto buffered = read({.kind = stream::v_by_token,
                              .token_tile = 1,
                              .dim_tile = 1,
                              .buffered = true,
                              .tokens = {},
                              .dims = {}});
  CHECK(buffered.fill == 1);
  CHECK(buffered(0, 5) == 9);
  CHECK(buffered(0, 4) == 0);
  CHECK(page_source(store).holds_data());
  CHECK(!page_source(empty_store{}).holds_data());
}

TEST_CASE("a page of codes is decoded if it is sealed, and is as appended while it is open") {
  using format = kv_format<int8_pages<fp32>, 16>;
  const std::vector<float> values{508, -256, 4, 0};
  std::vector<std::byte> page(64);
  int8_pages<fp32>::encode(values, page);  // the scale is 508 / 127 = 4
  const tile shape = by_token(1, 4);
  const auto sealed = make_view<format>(page.data(), shape, 1, 64, false, stream::k_by_token);
  const auto open = make_view<format>(reinterpret_cast<const std::byte*>(values.data()), shape, 1,
                                      64, true, stream::k_by_token);
  for (std::uint32_t i = 0; i < 4; ++i) {
    CHECK(sealed(0, i) == doctest::Approx(static_cast<double>(values[i])).epsilon(1e-6));
    CHECK(open(0, i) == values[i]);
  }
  CHECK(!view_of<format>{}.open);
  CHECK(view_of<format>{}.fill == 0);
  CHECK(!sealed.open);
  CHECK(open.open);
}

TEST_CASE("a page of K by token with scales of dims is decoded dim by dim") {
  using format = kv_format<int8_dims<fp32>, 16>;
  // Two tokens of 4 dims. Middle and half range / 127 of each dim: 8, 2; 0, 4; 130, 1; -64, 0.5.
  const std::vector<float> values{262, 508, 3, -127.5f, -246, -508, 257, -0.5f};
  std::vector<std::byte> page(64);
  int8_dims<fp32>::encode(values, {2, 4, 4, 0}, page);
  const auto keys =
      make_view<format>(page.data(), by_token(2, 4), 2, 64, false, stream::k_by_token);
  for (std::uint32_t t = 0; t < 2; ++t) {
    for (std::uint32_t i = 0; i < 4; ++i) {
      CHECK(keys(t, i) == values[t * 4 + i]);
    }
  }
  int8_dims<fp32>::encode(values, page);  // V: one scale, 508 / 127 = 4
  const auto v = make_view<format>(page.data(), by_token(2, 4), 2, 64, false, stream::v_by_token);
  CHECK(v(0, 1) == 508);
  CHECK(v(1, 2) == 256);  // 257 to the nearest multiple of 4
}

}  // namespace instinfer::test_head_pages
