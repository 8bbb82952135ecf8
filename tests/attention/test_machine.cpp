// What a machine itself does, whatever its path computes: budgets, plans, traffic, what observers
// are told, and when the mean stands for the rest.

#include <doctest/doctest.h>

#include <string>
#include <tuple>
#include <vector>

#include "instinfer/attention/machine.hpp"
#include "tests/support/refusal.hpp"

namespace instinfer::test_machine {

using namespace attention;

namespace {

using format = kv_format<fp32, 16>;
using list = std::vector<std::uint32_t>;

list list_of(index_view set) {
  list all;
  set.for_each([&](std::uint32_t i) { all.push_back(i); });
  return all;
}

// Chunks of 4 tokens, for 22 tokens.
struct fours {
  template <class Format>
  struct state {
    static constexpr std::size_t row_dim = 16;
    static constexpr std::size_t row_bytes = 10;
    void append(std::span<const float>, std::span<const float>) noexcept {}
    void forget(std::span<const float>, std::span<const float>) noexcept {}
    std::uint32_t chunks() const { return 6; }
    std::span<const float> row(std::uint32_t, std::span<float> scratch) const { return scratch; }
    static void prepare(std::span<const float>, std::span<float>) {}
    std::uint32_t weight(std::uint32_t u) const { return members(u).size(); }
    index_run members(std::uint32_t u) const { return {4 * u, std::min(4 * u + 4, 22u)}; }
    std::span<const float> value_mean(std::uint32_t) const { return {}; }
  };
};
// A block cache that has every other block, and notes its calls.
struct every_other {
  template <class Format>
  struct state {
    void append(std::span<const float>, std::span<const float>) noexcept {}
    void forget(std::span<const float>, std::span<const float>) noexcept {}
    void begin(std::uint32_t tokens) { block_tokens = tokens; }
    residence fetch(std::uint32_t block) {
      fetched.push_back(block);
      return block % 2 == 0 ? residence::cached : residence::flash;
    }
    void settle() { ++settled; }
    std::uint32_t block_tokens = 0;
    list fetched;
    int settled = 0;
  };
};
// An indexer of 16 dims, which chooses the first heads after reading 5 rows.
struct indexer {
  static constexpr int index_dims = 16;
  template <class Format>
  struct state {
    static constexpr std::size_t key_bytes = 20;
    void append(std::span<const float>, std::span<const float>) noexcept {}
    void forget(std::span<const float>, std::span<const float>) noexcept {}
    std::uint32_t top_heads(const index_query&, head_router router, std::uint32_t k,
                            index_set& chosen) const {
      chosen.add(0, k);
      return router == head_router::query_norm ? 0 : 5;
    }
  };
};
using mean = mean_value::state<format>;
using summaries =
    std::tuple<mean, fours::state<format>, every_other::state<format>, indexer::state<format>>;

// An arithmetic that notes what it is asked for.
struct spy {
  using format = test_machine::format;
  using scores = score_array<float>;

  void top_dims(const query_group&, group_reduction, std::uint32_t r, index_set& out) {
    asked = r;
    out.add(0, r);
  }
  void top(const scores&, group_reduction how, std::uint32_t k, std::uint32_t newest,
           index_set& out) {
    over = how;
    asked = k;
    forced = newest;
    out.add(0, k);
  }
  std::span<const float> rank(const scores& s, group_reduction how) {
    over = how;
    return s.values;
  }
  scores score_dims(const query_group&, index_view dims, index_view tokens, const access_plan&,
                    const auto&, const auto&) {
    given = dims;
    return {tokens, {}};
  }
  scores score_tokens(const query_group&, index_view tokens, const access_plan&, const auto&,
                      const auto&) {
    return {tokens, {}};
  }
  scores score_index(const index_query& q, index_view heads, index_view tokens, const auto&) {
    given = heads;
    index_values = q.queries.size();
    return {tokens, {}};
  }
  scores score_rows(const query_group&, index_view chunks, const auto&) { return {chunks, {}}; }
  scores softmax(const scores& s, auto&& weight_of) {
    weights.clear();
    s.candidates.for_each([&](std::uint32_t u) { weights.push_back(weight_of(u)); });
    return s;
  }
  void fold(const query_group&, const access_plan& plan, const auto&, const auto&) {
    folded = plan.reads().size();
  }
  void fold_scored(const scores&, index_view tokens, const access_plan& plan, const auto&,
                   const auto&) {
    given = tokens;
    folded = plan.reads().size();
  }
  void fold_rows(const scores&, index_view chunks, const auto&) { given = chunks; }
  void keep_mass(const scores&, index_view tokens) { given = tokens; }
  void blend_mean(const scores&, index_view tokens, const mean& of) {
    given = tokens;
    blended = &of;
  }

  std::uint32_t asked = 99;
  std::uint32_t forced = 99;
  group_reduction over = group_reduction::sum;
  index_view given;
  std::size_t folded = 0;
  std::size_t index_values = 0;
  const mean* blended = nullptr;
  list weights;
};

struct note {
  operation op;
  list chosen;            // of chose()
  std::size_t pages = 0;  // of accessed()
  std::uint32_t rows = 0, heads = 0;
  bool operator==(const note&) const = default;
};
struct notes {
  std::vector<note> all;
  void chose(operation op, index_view set) { all.push_back({op, list_of(set)}); }
  void accessed(operation op, const access_plan& plan) {
    all.push_back({op, {}, plan.reads().size()});
  }
  void scored(operation op, std::uint32_t rows, std::size_t, std::uint32_t heads) {
    all.push_back({op, {}, 0, rows, heads});
  }
};

// Tokens [first, 22), tiles of 4 tokens of K and V, tiles of 8 tokens and 4 dims of K by dim; the
// last tile of each is open.
struct on_head {
  explicit on_head(std::uint32_t first = 0) {
    head.tiles = {layout::by_token(4, 16), layout::by_dim(8, 4), layout::by_token(4, 16)};
    head.page_bytes = 256;
    head.entry = {.packed_bytes = 4, .packed_elements = 1, .scale_bytes = 0, .open_bytes = 4};
    head.first = first;
    head.tokens = 22;
    head.streams[0] = {.table = table, .sealed_tokens = 20, .dim_tiles = 1};
    head.streams[1] = {.table = table, .sealed_tokens = 16, .dim_tiles = 4};
    head.streams[2] = {.table = table, .sealed_tokens = 20, .dim_tiles = 1};
  }
  std::vector<page_id> table = std::vector<page_id>(200, page_id{1});
  layout::head_pages head;
  struct no_pages {
    static constexpr bool holds_data = false;
  } store;
  layout::page_reader<format> pages{store, head};
  summaries states;
  machine_scratch scratch;
  traffic moved;
  notes seen;
  observer_ref watch{seen};
  spy path;
  machine<spy, summaries> m{path, head, pages, states, scratch, moved, watch, 3, 7};
};

static_assert(AttentionMachine<machine<spy, summaries>>);
static_assert(AttentionMachine<machine_archetype>);
static_assert(!AttentionPolicy<int>);

const std::vector<float> values(3 * 16, 1.0f);
query_group query(const logit_rule& rule = {}) {
  return {.values = values, .group = 3, .logits = rule};
}

}  // namespace

TEST_CASE(
    "choices by a budget: of the head's dims, and of the candidates; the newest, of those kept") {
  on_head on;
  CHECK(on.m.layer() == 3);
  CHECK(on.m.layers() == 7);
  CHECK(list_of(on.m.top_dims(query(), 0.2)) == list{0, 1, 2, 3});  // 3.2, rounded up
  CHECK(on.seen.all == std::vector<note>{{operation::top_dims, {0, 1, 2, 3}}});
  on.seen.all.clear();
  const index_set candidates = index_set::range(0, 21);
  const spy::scores s{candidates, {}};
  CHECK(on.m.top_tokens(s, 0.25, 0.4, group_reduction::max).count() == 6);  // 5.25, rounded up
  CHECK(on.path.forced == 3);                                               // 2.4, rounded up
  CHECK(on.path.over == group_reduction::max);
  CHECK(on.m.top_chunks(s, budget::exactly(2)).count() == 2);
  CHECK(on.path.forced == 0);
  CHECK(on.path.over == group_reduction::sum);
  CHECK(on.seen.all == std::vector<note>{{operation::top_tokens, {0, 1, 2, 3, 4, 5}},
                                         {operation::top_chunks, {0, 1}}});
  CHECK(test::refusal_of([&] { on.m.top_dims(query(), 2.0); }).find("keep_dims: ") == 0);
  CHECK(test::refusal_of([&] { on.m.top_tokens(s, 2.0); }).find("keep_tokens: ") == 0);
  CHECK(test::refusal_of([&] { on.m.top_chunks(s, 2.0); }).find("keep_chunks: ") == 0);
  CHECK(test::refusal_of([&] { on.m.top_tokens(s, 0.5, 2.0); }).find("newest: ") == 0);
}

TEST_CASE("chunks above a threshold") {
  on_head on;
  std::vector<float> p{0.25f, 0.5f, 0.375f};
  const index_set candidates = index_set::range(2, 5);
  CHECK(list_of(on.m.chunks_above({candidates, p}, 0.25, group_reduction::max)) == list{3, 4});
  CHECK(on.path.over == group_reduction::max);
  CHECK(on.seen.all == std::vector<note>{{operation::top_chunks, {3, 4}}});
}

TEST_CASE("selections by position: what is visible, sinks and window of it, and runs") {
  on_head on(5);
  CHECK(list_of(on.m.all_tokens(query({.window = 2, .sinks = 1}))) == list{5, 20, 21});
  // A fifth of the 17 visible tokens is 3.4, rounded up.
  CHECK(list_of(on.m.steady(query(), 2, 0.2)) == list{5, 6, 18, 19, 20, 21});
  CHECK(on.seen.all.back() == note{operation::choose_tokens, {5, 6, 18, 19, 20, 21}});
  CHECK(list_of(on.m.run({7, 9})) == list{7, 8});
  const index_set a = index_set::range(6, 10), b = index_set::range(8, 12);
  CHECK(list_of(on.m.unite(a, b)) == list{6, 7, 8, 9, 10, 11});
  CHECK(list_of(on.m.intersect(a, b)) == list{8, 9});
  CHECK(list_of(on.m.subtract(a, b)) == list{6, 7});
  CHECK(list_of(on.m.index_heads(query())) == list{0, 1, 2});
}

TEST_CASE("chunks of tokens, and tokens of chunks") {
  on_head on;
  CHECK(list_of(on.m.all_chunks<fours>()) == list{0, 1, 2, 3, 4, 5});
  index_set some;
  some.add(3);
  some.add(8, 13);
  some.add(21);
  CHECK(list_of(on.m.chunks_of<fours>(some)) == list{0, 2, 3, 5});
  CHECK(on.m.chunks_of<fours>(index_view{}).empty());
  CHECK(list_of(on.m.members<fours>(index_set::range(4, 6))) == list{16, 17, 18, 19, 20, 21});
  CHECK(on.seen.all.back() == note{operation::choose_tokens, {16, 17, 18, 19, 20, 21}});
}

TEST_CASE("reads are planned, counted, and told before they happen") {
  on_head on(5);
  index_set dims;
  dims.add(1);
  dims.add(15);
  CHECK(list_of(on.m.score_dims(query({.window = 9}), dims).candidates) ==
        list{13, 14, 15, 16, 17, 18, 19, 20, 21});
  // 13 to 15 on the sealed tile, 16 to 21 on the open one; two of four dim tiles, one dim of each.
  CHECK(on.seen.all.back() == note{operation::score_dims, {}, 4});
  CHECK(on.moved == traffic{.pages_read = 2,
                            .array_bytes = 512,
                            .channel_bytes = 512,
                            .filtered_bytes = 2 * 3 * 4,
                            .buffer_bytes = 2 * 6 * 4});
  on.moved = {};
  const index_set tokens = index_set::range(14, 21);  // tiles 3 and 4, and one token of the open 5
  on.m.score_tokens(query(), tokens);
  CHECK(on.seen.all.back() == note{operation::score_tokens, {}, 3});
  CHECK(on.moved.filtered_bytes == 6 * 16 * 4);
  on.m.fold(query(), tokens, residence::fast);
  CHECK(on.seen.all.back() == note{operation::fold, {}, 6});
  CHECK(on.path.folded == 6);
  CHECK(on.moved.pages_read == 2);  // what lies in fast memory costs no page
  CHECK(on.moved.fast_bytes == 2 * 7 * 16 * 4);
  on.m.fold_scored({tokens, {}}, tokens);
  CHECK(on.seen.all.back() == note{operation::fold_scored, {}, 3});
  CHECK(list_of(on.path.given) == list_of(tokens));
  CHECK(on.moved.pages_read == 4);
}

TEST_CASE("a fold through a block cache asks it for each tile, and lets it settle once") {
  on_head on;
  index_set tokens = index_set::range(1, 3);  // of tile 0, which is cached
  tokens.add(7);                              // of tile 1
  tokens.add(13, 18);                         // of tiles 3 and 4
  on.m.fold_through<every_other>(query(), tokens);
  const auto& cache = std::get<every_other::state<format>>(on.states);
  CHECK(cache.block_tokens == 4);
  CHECK(cache.fetched == list{0, 1, 3, 4});
  CHECK(cache.settled == 1);
  CHECK(on.seen.all.back() == note{operation::fold, {}, 8});
  CHECK(on.moved.pages_read == 4);  // K and V of tiles 1 and 3
  CHECK(on.moved.filtered_bytes == 2 * (1 + 3) * 16 * 4);
  CHECK(on.moved.fast_bytes == 2 * (2 + 2) * 16 * 4);
}

TEST_CASE("a new machine takes the sets of the last one's scratch") {
  on_head on;
  const index_run* const first = on.m.all_tokens(query()).runs().data();
  machine<spy, summaries> next{on.path,    on.head,  on.pages, on.states,
                               on.scratch, on.moved, on.watch};
  CHECK(next.all_tokens(query()).runs().data() == first);
  CHECK(next.layer() == 0);
  CHECK(next.layers() == 1);
}

TEST_CASE("rows of a summary count by their bytes, and as many products as there are queries") {
  on_head on;
  const index_set chunks = index_set::range(1, 5);
  const auto scores = on.m.score_chunks<fours>(query(), chunks);
  CHECK(on.moved.summary_bytes == 4 * 10);
  CHECK(on.seen.all.back() == note{operation::score_chunks, {}, 0, 4, 3});
  on.m.softmax<fours>(on.m.score_chunks<fours>(query(), index_set::range(3, 6)));
  CHECK(on.path.weights == list{4, 4, 2});  // a chunk counts as many times as it has tokens
  on.m.softmax(scores);
  CHECK(on.path.weights == list{1, 1, 1, 1});
  on.moved = {};
  on.m.fold_chunks<fours>(scores, chunks);
  CHECK(on.moved.summary_bytes == 4 * 16 * sizeof(float));  // mean values of 16 dims
  CHECK(on.seen.all.back() == note{operation::score_chunks, {}, 0, 4, 0});
  CHECK(list_of(on.path.given) == list{1, 2, 3, 4});
}

TEST_CASE(
    "index heads: a budget of them, the rows that choosing reads, and the keys of the tokens") {
  on_head on;
  using notes_of = std::vector<note>;
  CHECK(list_of(on.m.top_heads<indexer>(query(), 0.4, head_router::block_means)) == list{0, 1});
  CHECK(on.seen.all == notes_of{{operation::score_chunks, {}, 0, 5, 3},
                                {operation::top_chunks, {0, 1}}});  // 1.2 of 3, rounded up
  CHECK(on.moved.summary_bytes == 5 * 16 * sizeof(float));
  on.seen.all.clear();
  const std::vector<float> w{1, 2, 3, 4}, q(4 * 16, 1.0f);
  query_group own = query();
  own.index = {q, w};  // four heads of its own
  CHECK(list_of(on.m.index_heads(own)) == list{0, 1, 2, 3});
  CHECK(list_of(on.m.top_heads<indexer>(own, 0.75, head_router::query_norm)) == list{0, 1, 2});
  CHECK(on.seen.all ==
        notes_of{{operation::score_chunks, {}, 0, 0, 4}, {operation::top_chunks, {0, 1, 2}}});
  CHECK(test::refusal_of([&] {
          on.m.top_heads<indexer>(own, 2.0, head_router::query_norm);
        }).find("active_heads: ") == 0);
  on.moved = {};
  const index_set heads = index_set::range(1, 3), tokens = index_set::range(4, 11);
  CHECK(list_of(on.m.score_index<indexer>(own, heads, tokens).candidates) == list_of(tokens));
  CHECK(on.seen.all.back() == note{operation::score_chunks, {}, 0, 7, 2});
  CHECK(on.moved.summary_bytes == 7 * 20);
  CHECK(list_of(on.path.given) == list{1, 2});
  CHECK(on.path.index_values == 4 * 16);
}

TEST_CASE("the mean stands for the rest, unless the mask hides live tokens") {
  const index_set kept = index_set::range(7, 9);
  for (const std::uint32_t first : {0u, 5u}) {
    on_head all(first);
    all.m.blend_mean({all.m.all_tokens(query()), {}}, kept);
    CHECK(all.path.blended == &std::get<mean>(all.states));
    CHECK(list_of(all.path.given) == list{7, 8});
    on_head wide(first);
    wide.m.blend_mean({wide.m.all_tokens(query({.window = 22 - first})), {}}, kept);
    CHECK(wide.path.blended != nullptr);
    on_head masked(first);
    masked.m.blend_mean({masked.m.all_tokens(query({.window = 21 - first})), {}}, kept);
    CHECK(masked.path.blended == nullptr);
  }
  on_head on;
  on.m.attenuate({kept, {}}, kept);
  CHECK(list_of(on.path.given) == list{7, 8});
}

TEST_CASE("a query moved back is rotated so, head by head; without a rotation it stays") {
  on_head on;
  CHECK(on.m.moved_back(query(), 5, {}).values.data() == values.data());
  CHECK(on.m.moved_back(query(), 0, {10000}).values.data() == values.data());
  const query_group moved = on.m.moved_back(query({.soft_cap = 2}), 5, {10000});
  REQUIRE(moved.values.size() == values.size());
  CHECK(moved.group == 3);
  CHECK(moved.logits.soft_cap == 2);
  std::vector<float> expected(16, 1.0f);
  rope{10000}.rotate(expected, -5);
  for (std::size_t i = 0; i < values.size(); ++i) {
    CHECK(moved.values[i] == expected[i % 16]);
  }
  CHECK(values == std::vector<float>(48, 1.0f));
}

TEST_CASE("a scratch gives the same sets and queries again, emptied, when it begins anew") {
  machine_scratch scratch;
  index_set* const first = &scratch.next_selection();
  first->add(3);
  scratch.next_query() = {1.0f};
  const float* const query_values = scratch.next_query().data();
  CHECK(query_values == nullptr);
  scratch.begin();
  CHECK(&scratch.next_selection() == first);
  CHECK(first->count() == 0);
  CHECK(scratch.next_query() == std::vector<float>{1.0f});  // for the caller to fill
}

TEST_CASE("an observer that nobody gave hears nothing") {
  const observer_ref nobody;
  nobody.chose(operation::fold, index_view{});
  no_observer none;
  const observer_ref ignored(none);
  ignored.scored(operation::fold, 1, 1, 1);
  struct deaf {
    int told = 0;
    void chose(operation, index_view) { ++told; }
    void accessed(operation, const access_plan&) { ++told; }
  } observer;
  const observer_ref some(observer);
  some.scored(operation::fold, 1, 1, 1);  // it has no scored()
  CHECK(observer.told == 0);
  some.chose(operation::fold, index_view{});
  some.accessed(operation::fold, access_plan{});
  CHECK(observer.told == 2);
}

}  // namespace instinfer::test_machine
