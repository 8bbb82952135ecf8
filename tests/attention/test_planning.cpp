// Plans against their definition: which pages hold a wanted element, and which of their elements.

#include <doctest/doctest.h>

#include <map>
#include <random>
#include <set>
#include <tuple>
#include <vector>

#include "instinfer/attention/planning.hpp"

namespace instinfer::test_planning {

using namespace attention;

namespace {

using index_list = std::set<std::uint32_t>;

// What one page gives, by stream, tile and dim tile.
struct wanted {
  index_list tokens, dims;
  page_id page;
  bool buffered;
  residence from;
  bool operator==(const wanted&) const = default;
};
using page_name = std::tuple<int, std::uint32_t, std::uint32_t>;
using pages = std::map<page_name, wanted>;

constexpr std::uint32_t k_dims = 8;
constexpr std::uint32_t v_dims = 6;

// Head 1 of 2 in a layer; pages have the numbers that the formula in stream_pages says.
struct small_head {
  small_head(const layout::tiling& tiles, std::uint32_t first, std::uint32_t tokens) {
    head.tiles = tiles;
    head.page_bytes = 64;
    head.first = first;
    head.tokens = tokens;
    for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
      const layout::tile& tile = tiles.of(s);
      if (!tile.stored()) {
        continue;
      }
      const std::uint32_t dim_tiles = (s == stream::v_by_token ? v_dims : k_dims) / tile.dims;
      std::vector<page_id>& table = tables[static_cast<std::size_t>(s)];
      for (std::uint32_t i = 0; i < (tokens / tile.tokens + 40) * 2 * dim_tiles; ++i) {
        table.push_back(page_id{1000 * static_cast<std::uint32_t>(s) + i});
      }
      head.streams[static_cast<std::size_t>(s)] = {
          .table = table,
          .sealed_tokens = tokens / tile.tokens * tile.tokens,
          .dim_tiles = dim_tiles,
          .kv_heads = 2,
          .head = 1};
    }
  }

  // Element by element: each is on one page.
  void want(pages& all, stream s, const index_list& tokens, const index_list& dims,
            auto&& from) const {
    const layout::tile& tile = head.tiles.of(s);
    const layout::stream_pages& of = head.of(s);
    for (const std::uint32_t t : tokens) {
      for (const std::uint32_t i : dims) {
        const std::uint32_t token_tile = t / tile.tokens;
        const std::uint32_t dim_tile = i / tile.dims;
        const bool buffered = (token_tile + 1) * tile.tokens > head.tokens;
        const auto number =
            1000 * static_cast<std::uint32_t>(s) + (token_tile * 2 + 1) * of.dim_tiles + dim_tile;
        wanted& page = all[{static_cast<int>(s), token_tile, dim_tile}];
        page.tokens.insert(t % tile.tokens);
        page.dims.insert(i % tile.dims);
        page.buffered = buffered;
        page.page = buffered ? no_page : page_id{number};
        page.from = from(t);
      }
    }
  }

  layout::head_pages head;
  std::vector<page_id> tables[stream_count];
};

pages pages_of(const access_plan& plan) {
  pages all;
  for (const page_read& read : plan.reads()) {
    wanted page{{}, {}, read.page, read.buffered, read.from};
    plan.tokens(read).for_each([&](std::uint32_t t) { page.tokens.insert(t); });
    plan.dims(read).for_each([&](std::uint32_t i) { page.dims.insert(i); });
    CHECK(read.wanted_elements() == page.tokens.size() * page.dims.size());
    CHECK(plan.tokens(read).count() == page.tokens.size());
    const bool once =
        all.try_emplace({static_cast<int>(read.kind), read.token_tile, read.dim_tile}, page).second;
    CHECK(once);
  }
  return all;
}

// The traffic of a plan, from its pages.
void check_bytes(const small_head& of, const access_plan& plan, const pages& expected) {
  constexpr entry_size entry{
      .packed_bytes = 2, .packed_elements = 1, .scale_bytes = 0, .open_bytes = 4};
  std::uint64_t flash = 0, sealed = 0, open = 0, fast = 0;
  for (const auto& [name, page] : expected) {
    const std::uint64_t elements = page.tokens.size() * page.dims.size();
    const bool far = page.from == residence::flash;
    flash += far && !page.buffered ? 1 : 0;
    (far ? page.buffered ? open : sealed : fast) += elements;
  }
  const traffic moved = plan.bytes(of.head.page_bytes, entry);
  CHECK(moved.pages_read == flash);
  CHECK(moved.array_bytes == 64 * flash);
  CHECK(moved.channel_bytes == 64 * flash);
  CHECK(moved.filtered_bytes == 2 * sealed);
  CHECK(moved.buffer_bytes == 4 * open);
  CHECK(moved.fast_bytes == 2 * fast);
  CHECK(moved.link_bytes == 0);
}

index_set set_of(const index_list& list) {
  index_set set;
  for (const std::uint32_t i : list) {
    set.add(i);
  }
  return set;
}

index_list all_below(std::uint32_t n) {
  index_list all;
  for (std::uint32_t i = 0; i < n; ++i) {
    all.insert(i);
  }
  return all;
}

using layout::by_dim;
using layout::by_token;
const layout::tiling tilings[] = {
    {by_token(4, k_dims), by_dim(8, 2), by_token(4, v_dims)},  // K and V alike, and K by dim
    {by_token(8, k_dims), {}, by_token(4, v_dims)},            // two pages of V for one of K
    {{}, by_dim(16, 4), by_token(4, v_dims)},                  // K by dim alone
    {by_token(4, 2), by_dim(4, 4), by_token(4, 3)}};           // rows cut into dims

}  // namespace

TEST_CASE("plans name the pages with wanted elements, each once, and these elements") {
  std::mt19937 random(1);
  access_plan plan;
  const auto from_flash = [](std::uint32_t) { return residence::flash; };
  for (const layout::tiling& tiles : tilings) {
    for (const std::uint32_t tokens : {0u, 1u, 4u, 5u, 31u, 32u, 33u, 100u}) {
      for (const std::uint32_t first : {0u, 3u, 4u, 17u, 30u}) {
        if (first > tokens) {
          continue;
        }
        const small_head of(tiles, first, tokens);
        for (const unsigned density : {0u, 1u, 4u, 15u, 16u}) {  // of 16
          CAPTURE(tokens);
          CAPTURE(first);
          CAPTURE(density);
          index_list chosen, dims;
          for (std::uint32_t t = first; t < tokens; ++t) {
            if (random() % 16 < density) {
              chosen.insert(t);
            }
          }
          for (std::uint32_t i = 0; i < k_dims; ++i) {
            if (random() % 2 == 0) {
              dims.insert(i);
            }
          }
          const stream by_columns = tiles.k_by_dim.stored() ? stream::k_by_dim : stream::k_by_token;
          const stream by_rows = tiles.k_by_token.stored() ? stream::k_by_token : stream::k_by_dim;
          CHECK(keys_by_dim(of.head) == by_columns);
          CHECK(keys_by_row(of.head) == by_rows);
          {
            pages expected;
            of.want(expected, by_columns, chosen, dims, from_flash);
            plan_score_dims(of.head, set_of(chosen), set_of(dims), plan);
            CHECK(pages_of(plan) == expected);
            check_bytes(of, plan, expected);
          }
          for (const residence from : {residence::flash, residence::fast, residence::cached}) {
            pages expected;
            of.want(expected, stream::v_by_token, chosen, all_below(v_dims),
                    [&](std::uint32_t) { return from; });
            plan_rows(of.head, stream::v_by_token, set_of(chosen), plan, from);
            CHECK(pages_of(plan) == expected);
            check_bytes(of, plan, expected);
          }
          {
            pages expected;
            of.want(expected, by_rows, chosen, all_below(k_dims), from_flash);
            of.want(expected, stream::v_by_token, chosen, all_below(v_dims), from_flash);
            plan_fold(of.head, set_of(chosen), plan);
            CHECK(pages_of(plan) == expected);
            check_bytes(of, plan, expected);
          }
        }
      }
    }
  }
}

TEST_CASE("a fold's V pages follow the K tile of their tokens, and have its residence") {
  const small_head of(tilings[1], 0, 40);  // K tiles of 8 tokens, V tiles of 4
  index_list chosen{1, 6, 9, 20, 21, 22, 23, 33};
  const auto every_other = [](std::uint32_t first) {
    return first / 8 % 2 == 0 ? residence::flash : residence::cached;
  };
  pages expected;
  for (const stream s : {stream::k_by_token, stream::v_by_token}) {
    of.want(expected, s, chosen, all_below(s == stream::v_by_token ? v_dims : k_dims),
            [&](std::uint32_t t) { return every_other(t / 8 * 8); });
  }
  access_plan plan;
  plan_fold(of.head, set_of(chosen), plan, every_other);
  CHECK(pages_of(plan) == expected);
  check_bytes(of, plan, expected);
  std::vector<std::pair<stream, std::uint32_t>> order;
  for (const page_read& read : plan.reads()) {
    order.emplace_back(read.kind, read.token_tile);
  }
  constexpr stream k = stream::k_by_token, v = stream::v_by_token;
  CHECK(order == std::vector<std::pair<stream, std::uint32_t>>{
                     {k, 0}, {v, 0}, {v, 1}, {k, 1}, {v, 2}, {k, 2}, {v, 5}, {k, 4}, {v, 8}});
}

TEST_CASE(
    "V that shares pages with K: each page costs one read, for K; V's entries, unless in K's") {
  constexpr entry_size entry{
      .packed_bytes = 2, .packed_elements = 1, .scale_bytes = 0, .open_bytes = 4};
  // Fused rows of 8 and 6 dims, and latent rows whose first 6 dims are V.
  const layout::tile in_row{4, v_dims, k_dims + v_dims, 1, k_dims};
  const layout::tile in_keys{4, v_dims, k_dims, 1, 0};
  const layout::tiling shared[] = {{{4, k_dims, k_dims + v_dims, 1, 0}, {}, in_row, sharing::page},
                                   {by_token(4, k_dims), {}, in_keys, sharing::entries}};
  // Tile 0 has 2 of them, tile 2 has 4, tile 5 has 1, and tile 9, which is open, has 2.
  const index_list chosen{1, 3, 8, 9, 10, 11, 22, 36, 37};
  const auto from = [](std::uint32_t first) {
    return first == 20 ? residence::cached : residence::flash;
  };
  for (const layout::tiling& tiles : shared) {
    small_head of(tiles, 1, 38);
    // Both streams of the head have the same pages.
    of.head.streams[static_cast<std::size_t>(stream::v_by_token)] = of.head.of(stream::k_by_token);
    access_plan plan;
    plan_fold(of.head, set_of(chosen), plan, from);
    const bool in_k = tiles.v_shares == sharing::entries;
    const std::uint32_t tile_of[] = {0, 2, 5, 9};
    const index_list tokens_of[] = {{1, 3}, {0, 1, 2, 3}, {2}, {0, 1}};
    REQUIRE(plan.reads().size() == 8);
    for (std::size_t i = 0; i < 8; ++i) {
      const page_read& read = plan.reads()[i];
      const bool v = i % 2 == 1;
      CHECK(read.kind == (v ? stream::v_by_token : stream::k_by_token));
      CHECK(read.token_tile == tile_of[i / 2]);
      CHECK(read.shares == (v ? tiles.v_shares : sharing::nothing));
      CHECK(read.buffered == (i / 2 == 3));
      CHECK(read.from == (i / 2 == 2 ? residence::cached : residence::flash));
      CHECK(read.page == (read.buffered ? no_page : page_id{tile_of[i / 2] * 2 + 1}));
      index_list tokens;
      plan.tokens(read).for_each([&](std::uint32_t t) { tokens.insert(t); });
      CHECK(tokens == tokens_of[i / 2]);
      CHECK(plan.dims(read).count() == (v ? v_dims : k_dims));
    }
    const std::uint64_t values = k_dims + (in_k ? 0 : v_dims);  // of a token
    CHECK(plan.bytes(64, entry) == traffic{.pages_read = 2,
                                           .array_bytes = 2 * 64,
                                           .channel_bytes = 2 * 64,
                                           .filtered_bytes = 6 * values * 2,
                                           .buffer_bytes = 2 * values * 4,
                                           .fast_bytes = values * 2});
  }
}

TEST_CASE("whole tiles of a dense plan share one slice of tokens") {
  const small_head of(tilings[0], 2, 38);  // the first tile has 2 live tokens, the last one 2
  access_plan plan;
  plan_rows(of.head, stream::v_by_token, index_set::range(2, 38), plan);
  REQUIRE(plan.reads().size() == 10);
  for (std::size_t i = 2; i < 9; ++i) {
    CHECK(plan.reads()[i].tokens.begin == plan.reads()[1].tokens.begin);
    CHECK(plan.reads()[i].tokens.count == 4);
  }
  CHECK(plan.reads()[0].tokens.count == 2);
  CHECK(plan.reads()[9].tokens.count == 2);
}

}  // namespace instinfer::test_planning
