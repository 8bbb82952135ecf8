// The group buffer: open pages grow with their tokens, within a budget; and what an endless stream
// takes.

#include <sstream>

#include <doctest/doctest.h>

#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/layout/dual.hpp"
#include "instinfer/store/pages/memory.hpp"
#include "instinfer/store/sequences/cache_file.hpp"
#include "instinfer/store/sequences/kv_cache.hpp"
#include "instinfer/summaries/index_keys.hpp"
#include "instinfer/summaries/page_bounds.hpp"
#include "tests/paths/odd_layouts.hpp"

namespace instinfer::test_open_pages {

namespace {

using format = kv_format<fp16, 128>;
template <class Format, class Layout>
using cache_of = store::kv_cache<Format, Layout, std::tuple<>, store::memory>;
using cache = cache_of<format, layout::dual<>>;

constexpr model_shape shape{.layers = 2, .q_heads = 2, .kv_heads = 2};
constexpr std::uint64_t row_bytes = 128 * 2;

// Row [kv_heads, k_dim] of token t, with values of their own for each token, head and dim. `sign`
// tells V from K.
template <class Format>
std::vector<typename Format::element> row(std::uint32_t t, float sign) {
  std::vector<typename Format::element> x;
  for (std::uint32_t i = 0; i < 2 * 128; ++i) {
    x.push_back(from_float<typename Format::element>(
        sign * static_cast<float>((t * 31 + i * 7) % 1021 + 1)));
  }
  return x;
}

template <class C>
void append(C& c, sequence seq, std::uint32_t tokens) {
  std::vector<typename C::element> k, v;
  const std::uint32_t have = c.at(seq, 0).tokens();
  for (std::uint32_t t = have; t < have + tokens; ++t) {
    const auto k_row = row<typename C::format>(t, 1.0f);
    const auto v_row = row<typename C::format>(t, -1.0f);
    k.insert(k.end(), k_row.begin(), k_row.end());
    v.insert(v.end(), v_row.begin(), v_row.end());
  }
  std::vector<page_id> written;
  c.append(seq, 0, k, v, written);
}

// Every value of the open pages is what was appended.
template <class C>
void check_open(const C& c, sequence seq) {
  for (std::uint32_t h = 0; h < 2; ++h) {
    const layout::head_pages head = c.at(seq, 0).head(h);
    const typename C::page_views pages(c, head);
    for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
      const layout::tile& tile = head.tiles.of(s);
      for (std::uint32_t t = head.of(s).sealed_tokens; tile.stored() && t < head.tokens; ++t) {
        const auto expected = row<typename C::format>(t, s == stream::v_by_token ? -1.0f : 1.0f);
        for (std::uint32_t i = 0; i < 128; ++i) {
          const auto page = pages({.kind = s,
                                   .token_tile = t / tile.tokens,
                                   .dim_tile = i / tile.dims,
                                   .page = no_page,
                                   .buffered = true,
                                   .tokens = {},
                                   .dims = {}});
          REQUIRE(page(t % tile.tokens, i % tile.dims) == to_float(expected[h * 128 + i]));
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("a sequence's first token takes four tokens of the group buffer, no full tile") {
  cache c(shape, {.bytes = 64 << 20, .context_tokens = 4096}, 8);
  const sequence seq = c.open();
  CHECK(c.at(seq, 0).resident_bytes() == 0);
  CHECK(c.at(seq, 0).open_bytes_after(0) == 0);
  append(c, seq, 1);
  CHECK(c.at(seq, 0).resident_bytes() == 3 * 2 * 4 * row_bytes);  // K twice, V; two heads
  CHECK(c.at(seq, 1).resident_bytes() == 0);
  CHECK(c.buffered_bytes() == 3 * 2 * 4 * row_bytes);
  c.reclaim(seq);
  CHECK(c.buffered_bytes() == 0);
}

// Columns, rows, columns of every second element; plain and coded, where sealing encodes.
TEST_CASE_TEMPLATE("open pages hold what was appended at every size, in at most twice its bytes", C,
                   cache, cache_of<format, test::scattered>,
                   cache_of<kv_format<int8_pages<fp16>, 128>, layout::dual<>>) {
  using element_type = typename C::element;
  C c(shape, {.bytes = 64 << 20, .context_tokens = 300}, 8);
  const sequence one_by_one = c.open();
  const sequence in_steps = c.open();
  for (std::uint32_t t = 1; t <= 1100; ++t) {
    append(c, one_by_one, 1);
    if (t % 37 == 0) {
      append(c, in_steps, 37);
    }
    if (t % 61 == 0 || t < 20) {
      CAPTURE(t);
      check_open(c, one_by_one);
      check_open(c, in_steps);
    }
    const layout::head_pages head = c.at(one_by_one, 0).head(0);
    std::uint64_t open = 0;
    for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
      if (head.tiles.of(s).stored()) {
        // Pages that were sealed once keep their memory.
        const std::uint64_t n = std::min(head.tokens, head.tiles.of(s).tokens);
        open += std::max<std::uint64_t>(2 * n, 4) * 2 * 128 * sizeof(element_type);
      }
    }
    if constexpr (!std::is_same_v<C, cache_of<format, test::scattered>>) {  // its pages have holes
      CHECK(c.at(one_by_one, 0).open_bytes() <= open);
    }
  }
  CHECK(c.buffered_bytes() == c.at(one_by_one, 0).open_bytes() + c.at(in_steps, 0).open_bytes());
}

TEST_CASE("more than the group buffer has is drive_full, and changes nothing") {
  cache c(shape, {.bytes = 64 << 20, .context_tokens = 4096, .buffer_bytes = 20000}, 8);
  const sequence a = c.open();
  append(c, a, 8);  // 12288 bytes
  const sequence b = c.open();
  append(c, b, 4);  // 6144
  CHECK(c.buffered_bytes() == 18432);
  CHECK_THROWS_WITH_AS(append(c, b, 1),
                       "append: 1 tokens need 6144 bytes of the group buffer, 1568 of 20000 are "
                       "free; see capacity.buffer_bytes",
                       drive_full);
  CHECK(c.at(b, 0).tokens() == 4);
  CHECK(c.buffered_bytes() == 18432);
  check_open(c, b);

  std::stringstream file;
  store::save(c, a, "", file);
  const sequence other = c.open();
  std::vector<page_id> written;
  CHECK_THROWS_AS(store::load(c, other, "", file, written), drive_full);
  CHECK(c.at(other, 0).tokens() == 0);
  c.reclaim(a);
  CHECK(c.buffered_bytes() == 6144);
  file.clear();
  file.seekg(0);
  store::load(c, other, "", file, written);
  CHECK(c.buffered_bytes() == 18432);
  check_open(c, other);
}

TEST_CASE("an endless stream takes what its live tokens take, and says so") {
  using narrow = kv_format<fp16, 64>;
  using boxes = attention::page_bounds<16>::state<narrow>;
  using keys = attention::index_keys<64, 128>::state<narrow>;
  store::kv_cache<narrow, layout::token_indexed<>, std::tuple<boxes, keys>, store::memory> c(
      {.layers = 1, .q_heads = 1, .kv_heads = 1}, {.bytes = 4 << 20, .context_tokens = 1024}, 8);
  const sequence seq = c.open();
  constexpr std::uint32_t step = 100;
  constexpr std::uint32_t live = 1000;
  std::vector<page_id> written;
  std::uint64_t most = 0;
  for (std::uint32_t tokens = step; tokens <= 300'000; tokens += step) {
    std::vector<fp16> k(step * 64);
    for (std::uint32_t i = 0; i < k.size(); ++i) {
      k[i] = from_float<fp16>(static_cast<float>((tokens + i) % 999));
    }
    c.append(seq, 0, k, k, written);
    written.clear();
    if (tokens > live) {
      c.reclaim(seq, {.tokens_before = tokens - live});
    }
    most = std::max(most, c.at(seq, 0).resident_bytes());
  }
  const auto& [box, key] = c.at(seq, 0).summaries(0);
  // 1000 live tokens are in 64 boxes and 9 blocks of keys; at most half of what is kept is gone.
  CHECK(box.chunks() - box.first_chunk() == 63);
  CHECK(box.bytes() <= 2 * 64 * 2 * 64 * 2);
  CHECK(key.bytes() <= 2 * 9 * (128 * 68 + 64 * 4));
  CHECK(most <= 2 * 64 * 256 + 2 * 9 * (128 * 68 + 256) + 2 * 2 * 33 * 4 + 2 * 4096);
  // What is kept is right: the box of the oldest live group, by the definition.
  const std::uint32_t chunk = box.first_chunk();
  std::vector<float> bounds(2 * 64);
  box.row(chunk, bounds);
  for (std::uint32_t i = 0; i < 64; ++i) {
    float largest = -1.0f;
    float smallest = 1000.0f;
    for (std::uint32_t t = chunk * 16; t < (chunk + 1) * 16; ++t) {
      const std::uint32_t tokens = (t / step + 1) * step;
      const auto x = static_cast<float>((tokens + (t % step) * 64 + i) % 999);
      largest = std::max(largest, x);
      smallest = std::min(smallest, x);
    }
    CHECK(bounds[i] == largest);
    CHECK(bounds[64 + i] == smallest);
  }
}

}  // namespace instinfer::test_open_pages
