// Tokens in the order of their clusters: what reordering the pages of a head changes, and what the
// index and the tree over it then say.

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

using attention::cluster_index;
using attention::cluster_tree;
using flat = kv_format<fp32, 2, 1>;
using index_state = cluster_index::state<flat>;
using tree_state = cluster_tree::state<flat>;
using both_states = std::tuple<index_state, tree_state>;

// Tokens [10, 16) in the clusters {1, 4}, none, {0, 2, 5} and {3}, counted from 10, the first two
// that are there in one coarse cluster; then [16, 19) in {2} and {0, 1}, in one.
both_states built(bool with_values = true) {
  both_states states;
  std::vector<float> k, v;
  for (const float i : {0.0f, 1.0f, 2.0f, 3.0f, 4.0f, 5.0f}) {
    k.insert(k.end(), {3 * i, -6 * i});
    v.push_back(6 * i * i);
  }
  if (!with_values) {
    k.clear();
    v.clear();
  }
  const std::span<const float> all_k(k), all_v(v);
  cluster_index::add_to<flat>(states, {10, 16}, {{{1, 4, 0, 2, 5, 3}, {0, 2, 2, 5, 6}}, {2, 3}},
                              all_k, all_v);
  cluster_index::add_to<flat>(states, {16, 19}, {{{2, 0, 1}, {0, 1, 3}}, {2}},
                              all_k.first(with_values ? 6 : 0), all_v.first(with_values ? 3 : 0));
  return states;
}

// Whether the state is taken from a file after change(its parts...).
template <class State>
bool fits_with(const both_states& states, auto&& change) {
  both_states changed = states;
  std::get<State>(changed).each_part(change);
  return std::get<State>(changed).fits(10, 25, states);
}

}  // namespace

TEST_CASE(
    "clusters and the tree over them: runs of tokens, their means, and where they came from") {
  for (const bool with_values : {true, false}) {
    const auto [index, tree] = built(with_values);
    CHECK(index.indexed() == index_run{10, 19});
    const std::vector<index_run> members{{10, 12}, {12, 15}, {15, 16}, {16, 17}, {17, 19}};
    REQUIRE(index.chunks() == members.size());
    for (std::uint32_t u = 0; u < members.size(); ++u) {
      CHECK(index.members(u) == members[u]);
      CHECK(index.weight(u) == members[u].size());
    }
    std::vector<std::uint32_t> from;
    for (std::uint32_t token = 8; token < 21; ++token) {
      from.push_back(index.position(token));
    }
    CHECK(from == std::vector<std::uint32_t>{8, 9, 11, 14, 10, 12, 15, 13, 18, 16, 17, 19, 20});
    REQUIRE(tree.chunks() == 3);
    CHECK(tree.members(0) == index_run{0, 2});
    CHECK(tree.members(1) == index_run{2, 3});
    CHECK(tree.members(2) == index_run{3, 5});
    CHECK(tree.weight(0) == 5);
    CHECK(tree.weight(1) == 1);
    CHECK(tree.weight(2) == 3);
    CHECK(index.has_values() == with_values);
    CHECK(tree.has_values() == with_values);
    CHECK(index.bytes() == 5 * (2 + 1) * 4 + (5 + 9) * 4);
    CHECK(tree.bytes() == 3 * (2 * 4 + 3 * 4));
  }
  const auto [index, tree] = built();
  // Key i is (3 i, -6 i), value i is 6 i^2.
  const float means[] = {7.5f, 7, 9, 6, 1.5f}, value_means[] = {51, 58, 54, 24, 3};
  for (std::uint32_t u = 0; u < 5; ++u) {
    CHECK(std::ranges::equal(index.row(u, {}), std::vector<float>{means[u], -2 * means[u]}));
    CHECK(std::ranges::equal(index.value_mean(u), std::vector<float>{value_means[u]}));
  }
  // Over tokens: (2 * 7.5 + 3 * 7) / 5, 9, (6 + 2 * 1.5) / 3.
  const float tree_means[] = {7.2f, 9, 3};
  for (std::uint32_t u = 0; u < 3; ++u) {
    CHECK(
        std::ranges::equal(tree.row(u, {}), std::vector<float>{tree_means[u], -2 * tree_means[u]}));
  }
}

TEST_CASE("indexed tokens go together or stay; new numbers move all of them") {
  both_states states = built();
  auto& [index, tree] = states;
  CHECK(!index.may_forget(10));
  for (std::uint32_t n = 0; n < 25; ++n) {
    CHECK(index.may_truncate(n) == (n <= 10 || n >= 19));
  }
  tree.truncate(19, states);
  index.truncate(19, states);
  CHECK(index.chunks() == 5);
  CHECK(tree.chunks() == 3);
  index.rebase(10);
  tree.rebase(10);
  CHECK(index.indexed() == index_run{0, 9});
  CHECK(index.members(1) == index_run{2, 5});
  CHECK(index.members(4) == index_run{7, 9});
  CHECK(index.position(2) == 0);
  CHECK(index.position(9) == 9);
  CHECK(index.fits(0, 9, states));
  CHECK(tree.fits(0, 9, states));
  tree.truncate(0, states);
  index.truncate(0, states);
  CHECK(index.indexed().size() == 0);
  CHECK(index.chunks() == 0);
  CHECK(index.bytes() == 0);
  CHECK(index.may_forget(10));
  CHECK(tree.chunks() == 0);
  CHECK(!tree.has_values());
  CHECK(index.fits(0, 5, states));
  CHECK(tree.fits(0, 5, states));
  index.rebase(3);
  CHECK(index.indexed() == index_run{});
}

TEST_CASE("parts of a file that later calls could not rely on are refused") {
  const both_states states = built();
  const auto& [index, tree] = states;
  CHECK(index.fits(10, 19, states));
  CHECK(index.fits(0, 30, states));
  CHECK(!index.fits(11, 19, states));
  CHECK(!index.fits(10, 18, states));
  CHECK(tree.fits(10, 19, states));

  const auto refused = [&](auto&& change) { CHECK(!fits_with<index_state>(states, change)); };
  CHECK(fits_with<index_state>(states, [](auto&...) {}));
  refused([](index_run& indexed, auto&, auto& starts, auto& positions, auto&) {
    indexed.first = starts[0] = 9;  // before the first live token
    positions.push_back(9);
  });
  refused([](index_run&, auto&, auto& starts, auto&, auto&) { starts[0] = 11; });
  refused([](index_run&, auto&, auto& starts, auto&, auto&) { starts.back() = 19; });
  refused([](index_run&, auto&, auto& starts, auto&, auto&) { std::swap(starts[1], starts[2]); });
  refused([](index_run&, auto&, auto& starts, auto&, auto&) { starts[2] = starts[1]; });
  refused([](index_run&, auto&, auto&, auto& positions, auto&) { positions.pop_back(); });
  refused([](index_run&, auto&, auto&, auto& positions, auto&) { positions[3] = 9; });
  refused([](index_run&, auto&, auto&, auto& positions, auto&) { positions[3] = 19; });
  refused([](index_run&, auto& centroids, auto&, auto&, auto&) { centroids.pop_back(); });
  refused([](index_run&, auto&, auto&, auto&, auto& value_means) { value_means.pop_back(); });
  refused([](index_run&, auto& centroids, auto& starts, auto&, auto& value_means) {
    starts.clear();  // tokens of no cluster
    centroids.clear();
    value_means.clear();
  });

  const auto refused_tree = [&](auto&& change) { CHECK(!fits_with<tree_state>(states, change)); };
  CHECK(fits_with<tree_state>(states, [](auto&...) {}));
  refused_tree([](auto&, auto& chunks) { ++chunks[0].tokens; });
  refused_tree([](auto&, auto& chunks) { ++chunks[1].members.first; });
  refused_tree([](auto&, auto& chunks) { chunks[1].members.last = 2; });
  refused_tree([](auto&, auto& chunks) { ++chunks[2].members.last; });
  refused_tree([](auto& centroids, auto& chunks) {  // clusters of no coarse one
    chunks.pop_back();
    centroids.resize(4);
  });
  refused_tree([](auto& centroids, auto&) { centroids.pop_back(); });
}

}  // namespace instinfer::test_cluster_index
