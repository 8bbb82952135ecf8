// What a layer writes of itself and reads again: the pages and open tokens of a stream, what
// queries taught its summaries, the owners of pages that tables name, and a file that just fits.

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <sstream>

#include "instinfer/layout/token_indexed.hpp"
#include "instinfer/store/layer/layer_summaries.hpp"
#include "instinfer/store/layer/stream_cache.hpp"
#include "instinfer/store/pages/memory.hpp"
#include "instinfer/store/sequences/cache_file.hpp"
#include "instinfer/store/sequences/commit.hpp"
#include "instinfer/store/sequences/kv_cache.hpp"
#include "instinfer/summaries/heavy_hitters.hpp"
#include "tests/support/refusal.hpp"

namespace instinfer::test_layer_state {

namespace {

using format = kv_format<fp32, 16>;
constexpr std::uint32_t page_bytes = 512;  // 8 tokens
constexpr layout::tile tile{8, 16, 16, 1, 0};

struct written_bytes {
  std::vector<std::byte> all;
  void bytes(std::span<const std::byte> from) { all.insert(all.end(), from.begin(), from.end()); }
};
struct read_bytes {
  std::span<const std::byte> left;
  void bytes(std::span<std::byte> to) {
    REQUIRE(to.size() <= left.size());
    std::ranges::copy(left.first(to.size()), to.begin());
    left = left.subspan(to.size());
  }
};

// Weights of one head's tokens.
struct one_head {
  std::vector<float> of_tokens;
  std::size_t heads() const { return 1; }
  std::span<const float> head(std::size_t) const { return of_tokens; }
};

}  // namespace

TEST_CASE("a stream's table and open tokens come back, whatever was reclaimed and is open") {
  for (const std::uint32_t reclaimed : {0u, 8u, 17u}) {
    for (const std::uint32_t tokens : {24u, 29u}) {
      CAPTURE(reclaimed);
      CAPTURE(tokens);
      store::memory pages(2, 32, page_bytes);
      const auto empty = [] {
        return store::stream_cache<format>(stream::k_by_token, tile, page_bytes, 2, {}, 0);
      };
      auto stream = empty();
      std::vector<float> x(std::size_t{tokens} * 2 * 16);
      std::iota(x.begin(), x.end(), 1.0f);
      std::vector<page_id> written;
      stream.reserve(0, tokens, true);
      stream.append(pages, 0, {x, {}}, 0, tokens, written, [] {});
      stream.reclaim(pages, reclaimed);
      written_bytes file;
      stream.write_state(tokens, file);
      const std::uint32_t tiles = tokens / 8, gone = reclaimed / 8, open = tokens % 8;
      std::size_t room = 0;  // of the open page: 4 tokens, or 8
      while (room < open) {
        room = room == 0 ? 4 : 2 * room;
      }
      CHECK(file.all.size() ==
            (tiles - gone) * 2 * sizeof(page_id) + room * 2 * 16 * sizeof(float));

      auto again = empty();
      read_bytes from{file.all};
      again.read_state(reclaimed, tokens, from);
      CHECK(from.left.empty());
      CHECK(again.sealed_tokens() == 8 * tiles);
      CHECK(again.live_pages() == 2 * (tiles - gone));
      CHECK(std::ranges::equal(again.live(), stream.live()));
      CHECK(std::ranges::equal(again.open().bytes(), stream.open().first(open).bytes()));
    }
  }
}

TEST_CASE("a stream that is not stored has no pages") {
  const store::page_grid<format> grid{stream::k_by_dim, {}, page_bytes, 2};
  CHECK(!grid.stored());
  CHECK(grid.dim_tiles() == 0);
  CHECK(grid.pages_per_tile() == 0);
}

TEST_CASE("what queries taught one summary is copied and put back") {
  using state = attention::heavy_hitters::state<format>;
  store::layer_summaries<std::tuple<state>> summaries(2);
  const std::vector<float> row(16);
  summaries.reserve(1);
  summaries.for_each([&](state& s) { s.append(row, row); });
  auto copies = summaries.copy_learned();
  REQUIRE(copies.size() == 2);
  const auto taught = [](const auto& states) { return std::get<0>(states).weights()[0] > 0; };
  CHECK(!summaries.any_head(taught));
  std::get<0>(summaries.of(1)).add(one_head{{0.5f}});
  CHECK(summaries.any_head(taught));
  summaries.put_back(copies);
  CHECK(!summaries.any_head(taught));
  CHECK(store::layer_summaries<std::tuple<>>(2).copy_learned().empty());  // nothing learns
}

TEST_CASE("a table may name the pages of a drive, and not the one after the last") {
  struct drive_of_4 {
    bool holds(page_id) const { return true; }
    void reserve_owners(std::span<const page_id>) {}
    void share(std::span<const page_id>) {}
  } drive;
  store::page_owners owners(4);
  const page_id last[] = {page_id{3}}, after[] = {page_id{4}};
  owners.add(drive, last);
  CHECK(test::refusal_of<bad_file>([&] {
          owners.add(drive, after);
        }).starts_with("reopen: a table names page 4"));
}

TEST_CASE("a file loads into a cache that has room for no page more; pages add to those before") {
  using cache =
      store::kv_cache<format, layout::token_indexed<page_bytes>, std::tuple<>, store::memory>;
  constexpr model_shape shape{.layers = 1, .q_heads = 2, .kv_heads = 2};
  constexpr std::uint32_t tokens = 24;
  constexpr std::uint64_t file_pages = 2 * 2 * tokens / 8;  // K and V of two heads
  const store::capacity just{.bytes = file_pages * page_bytes, .context_tokens = 64};
  std::vector<float> x(std::size_t{tokens} * 2 * 16, 0.5f);
  std::vector<page_id> written;
  cache from(shape, just, 1);
  const sequence seq = from.open();
  from.append(seq, 0, x, x, {}, written);
  std::stringstream file;
  store::save(from, seq, "", file);

  cache to(shape, just, 1);
  written.assign(3, page_id{});
  const traffic loaded = store::load(to, to.open(), "", file, written);
  CHECK(loaded.pages_written == file_pages);
  CHECK(loaded.written_bytes == file_pages * page_bytes);
  CHECK(written.size() == 3 + file_pages);
  CHECK(to.pages().free_pages() == 0);
}

}  // namespace instinfer::test_layer_state
