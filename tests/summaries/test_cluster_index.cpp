// Tokens in the order of their clusters: what reordering the pages of a head changes.

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

#include "instinfer/layout/dual.hpp"
#include "instinfer/store/pages/memory.hpp"
#include "instinfer/store/sequences/kv_cache.hpp"
#include "instinfer/summaries/cluster_index.hpp"
#include "tests/paths/random_cache.hpp"
#include "tests/support/rows.hpp"

namespace instinfer::test_cluster_index {

using namespace test;

TEST_CASE_TEMPLATE("reordering changes the wanted tokens of one head and nothing else", Layout,
                   layout::token_indexed<>, layout::dual<>) {
  using states = std::tuple<attention::cluster_index::state<method_format>>;
  const test::random_cache<method_format> data(91, 133, 3, 3);
  for (const index_run run : {index_run{0, 133}, {5, 101}, {16, 32}, {130, 133}, {17, 18}}) {
    store::kv_cache<method_format, Layout, states, store::memory> cache(
        {.layers = 1, .q_heads = 3, .kv_heads = 3}, {.bytes = 8 << 20, .context_tokens = 128}, 8);
    const sequence seq = cache.open();
    std::vector<page_id> written;
    cache.append(seq, 0, data.k, data.v, {}, written);
    std::mt19937 random(run.first);
    attention::clustering c{{}, std::vector<std::uint32_t>(7)};
    for (std::uint32_t i = 0; i < run.size(); ++i) {
      c.cluster_of.push_back(static_cast<std::uint32_t>(random() % 7));
    }
    c.count_sizes();
    const std::uint64_t free = cache.pages().free_pages();
    written.clear();
    const traffic moved = cache.template build<attention::cluster_index>(
        seq, 0, 1, run,
        [&](std::span<const float> keys, int dim) {
          CHECK(std::ranges::equal(
              keys.first(64), data.k_tokens(static_cast<int>(run.first), 133).subspan(64, 64)));
          CHECK(dim == 64);
          return attention::cluster_levels{attention::cluster_major(c)};
        },
        written);
    CHECK(cache.pages().free_pages() == free);
    CHECK(moved.pages_written == written.size());
    CHECK(moved.written_bytes == written.size() * 4096);
    CHECK(moved.pages_read == moved.pages_written);
    const auto& layer = cache.at(seq, 0);
    const auto& index = std::get<0>(layer.summaries(1));
    CHECK(index.indexed() == run);
    std::uint64_t pages = 0;  // of head 1, that hold a token of the run and are full
    for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
      const layout::tile& tile = cache.tiles().of(s);
      for (std::uint32_t head = 0; tile.stored() && head < 3; ++head) {
        const layout::head_pages at = layer.head(head);
        const typename decltype(cache)::page_views views{cache, at};
        const std::span<const float> given = s == stream::v_by_token ? data.v : data.k;
        for (std::uint32_t t = 0; t < 133; t += tile.tokens) {
          const bool open = t >= at.of(s).sealed_tokens;
          for (std::uint32_t dim_tile = 0; dim_tile < 64 / tile.dims; ++dim_tile) {
            const auto page =
                views({.kind = s,
                       .token_tile = t / tile.tokens,
                       .dim_tile = dim_tile,
                       .page = open ? no_page : at.of(s).page(t / tile.tokens, dim_tile),
                       .buffered = open,
                       .tokens = {},
                       .dims = {}});
            pages += head == 1 && !open && t < run.last && t + tile.tokens > run.first ? 1 : 0;
            bool same = true;
            for (std::uint32_t token = t; token < std::min(133u, t + tile.tokens); ++token) {
              const std::uint32_t from = head == 1 ? index.position(token) : token;
              const auto row = rows_of(given, from * 3 + head, 1);
              for (std::uint32_t i = 0; i < tile.dims; ++i) {
                same = same &&
                       page.data[page.shape.offset(token - t, i)] == row[dim_tile * tile.dims + i];
              }
            }
            CHECK(same);
          }
        }
      }
    }
    CHECK(pages == moved.pages_written);  // each once
  }
}

namespace {

// Tokens [5, 10): clusters 0 and 2 have 2 and 3 of them, cluster 1 has none.
using small = kv_format<fp32, 16>;
attention::cluster_index::state<small> small_index() {
  attention::clustering c{{0, 2, 0, 2, 2}, std::vector<std::uint32_t>(3)};
  c.count_sizes();
  std::vector<float> rows(5 * 16, 6.0f);
  for (const std::size_t of_cluster_0 : {0u, 2u}) {
    std::fill_n(rows.begin() + static_cast<std::ptrdiff_t>(of_cluster_0 * 16), 16, 1.0f);
  }
  attention::cluster_index::state<small> index;
  CHECK(index.fits(0, 0, 0));
  index.add({5, 10}, attention::cluster_major(c), rows, rows);
  return index;
}

}  // namespace

TEST_CASE("an index fits the tokens that it was built over, while all of its parts agree") {
  const auto index = small_index();
  CHECK(index.chunks() == 2);
  CHECK(index.fits(5, 10, 0));
  CHECK(index.fits(0, 20, 0));
  CHECK(!index.fits(6, 10, 0));
  CHECK(!index.fits(5, 9, 0));
  using numbers = std::vector<std::uint32_t>;
  const auto fits_with = [&](auto&& change) {
    auto changed = index;
    changed.each_part([&](index_run& run, auto&, numbers& starts, numbers& positions, auto&) {
      change(run, starts, positions);
    });
    return changed.fits(5, 10, 0);
  };
  CHECK(fits_with([](index_run&, numbers&, numbers&) {}));
  CHECK(!fits_with([](index_run&, numbers& starts, numbers&) { starts[0] = 6; }));
  CHECK(!fits_with([](index_run&, numbers& starts, numbers&) { starts[1] = 5; }));
  CHECK(!fits_with([](index_run&, numbers& starts, numbers&) { starts[1] = 10; }));
  CHECK(!fits_with([](index_run&, numbers&, numbers& positions) { positions[1] = 4; }));
  CHECK(!fits_with([](index_run&, numbers&, numbers& positions) { positions[1] = 10; }));
  CHECK(!fits_with([](index_run&, numbers&, numbers& positions) { positions.pop_back(); }));
  CHECK(!fits_with([](index_run&, numbers& starts, numbers&) { starts.pop_back(); }));
  CHECK(!fits_with([](index_run& run, numbers&, numbers&) { run.last = 9; }));
}

TEST_CASE("a coarse chunk has the tokens of its members, and their mean") {
  const auto index = small_index();
  attention::cluster_tree::state<small> tree;
  tree.add(index, 0, std::vector<std::uint32_t>{2});
  REQUIRE(tree.chunks() == 1);
  CHECK(tree.members(0) == index_run{0, 2});
  CHECK(tree.weight(0) == 5);
  CHECK(tree.row(0, {})[15] == 4);  // (2 * 1 + 3 * 6) / 5
}

}  // namespace instinfer::test_cluster_index
