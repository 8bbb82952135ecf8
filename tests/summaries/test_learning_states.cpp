// Summaries that attention feeds back to, and the mean of V: against lists that are kept by hand.

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <tuple>
#include <vector>

#include "instinfer/codec/element.hpp"
#include "instinfer/core/shape.hpp"
#include "instinfer/summaries/cluster_index.hpp"
#include "instinfer/summaries/heavy_hitters.hpp"
#include "instinfer/summaries/index_keys.hpp"
#include "instinfer/summaries/mean_value.hpp"
#include "instinfer/summaries/moving_weights.hpp"
#include "instinfer/summaries/page_bounds.hpp"
#include "instinfer/summaries/wave_buffer.hpp"

namespace instinfer::test_learning_states {

using namespace attention;

namespace {

using format = kv_format<fp32, 16>;
using list = std::vector<std::uint32_t>;
constexpr std::span<const float> no_row;

list list_of(index_view set) {
  list all;
  set.for_each([&](std::uint32_t i) { all.push_back(i); });
  return all;
}
list run_of(index_run run) {
  list all;
  for (std::uint32_t i = run.first; i < run.last; ++i) {
    all.push_back(i);
  }
  return all;
}

// Weights [heads, tokens] as observations come.
struct weights {
  std::size_t count;
  std::vector<float> values;
  std::size_t heads() const { return count; }
  std::span<const float> head(std::size_t h) const {
    return std::span(values).subspan(h * values.size() / count, values.size() / count);
  }
};

static_assert(learns_results<heavy_hitters::state<format>>);
static_assert(learns_results<moving_weights::state<format>>);
static_assert(learns<wave_buffer::state<format>> && !learns_results<wave_buffer::state<format>>);
static_assert(!learns<mean_value::state<format>>);
using two_states = std::tuple<mean_value::state<format>, wave_buffer::state<format>>;
static_assert(keeps<wave_buffer::state<format>, two_states>);
static_assert(!keeps<heavy_hitters::state<format>, two_states>);

}  // namespace

TEST_CASE("tokens leave in multiples that all states of a head can leave out") {
  CHECK(common_multiple(4, 6) == 12);
  CHECK(common_multiple(1, 16) == 16);
  CHECK(common_multiple(0, 16) == 0);  // one of them cannot
  CHECK(common_multiple(1u << 31, 1) == 1u << 31);
  CHECK(common_multiple(1u << 31, 3) == 0);  // beyond all token numbers
}

TEST_CASE("mean of V: of the live tokens, as they are stored; 0 for none") {
  mean_value::state<format> mean;
  std::vector<std::vector<float>> rows;
  std::mt19937 random(1);
  const auto check = [&] {
    for (std::size_t i = 0; i < 16; ++i) {
      double sum = 0;
      for (const auto& row : rows) {
        sum += static_cast<double>(row[i]);
      }
      const double expected = rows.empty() ? 0 : sum / static_cast<double>(rows.size());
      CHECK(mean[i] == doctest::Approx(expected).epsilon(1e-12));
    }
    CHECK(mean.fits(10, 10 + static_cast<std::uint32_t>(rows.size()), 0));
    CHECK(!mean.fits(10, 11 + static_cast<std::uint32_t>(rows.size()), 0));
  };
  check();
  for (int step = 0; step < 60; ++step) {
    if (rows.size() > 20 || (step % 3 == 2 && !rows.empty())) {
      mean.forget(no_row, rows.back());
      rows.pop_back();
    } else {
      auto& row = rows.emplace_back(16);
      std::ranges::generate(row, [&] { return static_cast<float>(random() % 64); });
      mean.append(no_row, row);
    }
    check();
  }
  const std::vector<float> before = rows.front();
  for (float& x : rows.front()) {
    x += 0.5f;
  }
  restate_v<float>(mean, before, rows.front());
  check();
  while (!rows.empty()) {
    mean.forget(no_row, rows.back());
    rows.pop_back();
  }
  check();
}

TEST_CASE("heavy hitters: sums over heads; the newest stay, and of the others the heaviest") {
  heavy_hitters::state<format> state;
  state.reserve(6);
  for (int i = 0; i < 6; ++i) {
    state.append(no_row, no_row);
  }
  CHECK(list_of(state.kept()) == list{0, 1, 2, 3, 4, 5});
  CHECK(state.bytes() == 6 * sizeof(double));
  state.add(weights{2, {1, 5, 0, 5, 0, 0, 2, 0, 3, 0, 0, 1}});  // sums 3 5 3 5 0 1
  CHECK(std::ranges::equal(state.weights(), std::vector<double>{3, 5, 3, 5, 0, 1}));
  state.evict(4, 2);  // enough room
  CHECK(state.kept().count() == 6);
  state.evict(3, 2);  // of 0 to 3, the three heaviest; the older of two equals
  CHECK(list_of(state.kept()) == list{0, 1, 3, 4, 5});
  CHECK(std::ranges::equal(state.weights(), std::vector<double>{3, 5, 5, 0, 1}));
  CHECK(state.fits(0, 6, 0));
  CHECK(!state.fits(0, 7, 0));
  CHECK(!state.fits(1, 6, 0));
  state.append(no_row, no_row);
  state.add(weights{1, {0, 0, 1, 9, 0, 7}});
  state.evict(1, 2);  // 0 1 3 4 | 5 6: token 4 has 9
  CHECK(list_of(state.kept()) == list{4, 5, 6});
  CHECK(std::ranges::equal(state.weights(), std::vector<double>{9, 1, 7}));
  for (int i = 0; i < 4; ++i) {
    state.forget(no_row, no_row);  // 0 to 3 are not kept any more
  }
  CHECK(list_of(state.kept()) == list{4, 5, 6});
  state.forget(no_row, no_row);
  CHECK(list_of(state.kept()) == list{5, 6});
  CHECK(std::ranges::equal(state.weights(), std::vector<double>{1, 7}));
  CHECK(state.fits(5, 7, 0));
  state.evict(0, 1);
  CHECK(list_of(state.kept()) == list{6});
}

TEST_CASE_TEMPLATE("tokens that no query has seen can be taken back, and no others", State,
                   heavy_hitters::state<format>, moving_weights::state<format>) {
  State state;
  const auto append = [&](int count) {
    for (int i = 0; i < count; ++i) {
      state.append(no_row, no_row);
    }
  };
  const auto query = [&](std::uint32_t tokens) {
    const weights equal{1, std::vector<float>(tokens, 0.5f)};
    if constexpr (requires { state.add(equal); }) {
      state.add(equal);
    } else {
      state.observe(equal, tokens, {});
    }
  };
  const auto check = [&](std::uint32_t least, std::uint32_t tokens) {
    for (std::uint32_t n = 0; n <= tokens; ++n) {
      CHECK(state.may_truncate(n) == (n >= least));
    }
  };
  state.reserve(9);
  append(3);
  check(0, 3);
  state.forget(no_row, no_row);
  check(1, 3);
  query(2);
  check(3, 3);
  append(4);
  check(3, 7);
  state.truncate(5, std::tuple<>{});
  check(3, 5);
  CHECK(state.fits(1, 5, 0));
  state.forget(no_row, no_row);
  state.rebase(2);  // token 2 is the first
  check(1, 3);
  CHECK(state.fits(0, 3, 0));
  query(3);
  check(3, 3);
  append(1);
  state.forget(no_row, no_row);
  state.forget(no_row, no_row);
  state.forget(no_row, no_row);
  check(3, 4);
  state.forget(no_row, no_row);
  check(4, 4);
  CHECK(state.bytes() == 0);
}

TEST_CASE(
    "heavy hitters: weights stay with their tokens when others are taken back or renumbered") {
  heavy_hitters::state<format> state;
  state.reserve(7);
  for (int i = 0; i < 5; ++i) {
    state.append(no_row, no_row);
  }
  state.add(weights{1, {3, 1, 2, 7, 5}});
  state.append(no_row, no_row);
  state.append(no_row, no_row);
  state.truncate(6, std::tuple<>{});
  CHECK(list_of(state.kept()) == list{0, 1, 2, 3, 4, 5});
  CHECK(std::ranges::equal(state.weights(), std::vector<double>{3, 1, 2, 7, 5, 0}));
  state.evict(2, 1);
  CHECK(list_of(state.kept()) == list{3, 4, 5});
  for (int i = 0; i < 3; ++i) {
    state.forget(no_row, no_row);
  }
  state.rebase(3);
  state.append(no_row, no_row);
  CHECK(list_of(state.kept()) == list{0, 1, 2, 3});
  CHECK(std::ranges::equal(state.weights(), std::vector<double>{7, 5, 0, 0}));
  CHECK(state.fits(0, 4, 0));
  std::uint32_t unseen = 0;
  state.each_part([&](auto&, auto&, auto&, auto&, std::uint32_t& of) { unseen = ++of; });
  CHECK(unseen == 3);  // tokens 2 and 3, and one more
  state.each_part([](auto&, auto&, auto&, auto&, std::uint32_t& of) { of = 5; });
  CHECK(!state.fits(0, 4, 0));  // more than there are
}

TEST_CASE("moving weights: averages of what a token drew, while it is in the window") {
  moving_weights::state<format> state;
  const salience_rule rule{.alpha = 0.25, .beta = 0.5, .least_kept = 1};
  for (int i = 0; i < 4; ++i) {
    state.append(no_row, no_row);
  }
  CHECK(run_of(state.window()) == list{0, 1, 2, 3});
  CHECK(run_of(state.older()).empty());
  state.observe(weights{2, {0.2f, 0.2f, 0.2f, 0.4f, 0.4f, 0, 0, 0.6f}}, 4, rule);
  CHECK(state.average(0) == doctest::Approx(0.3));
  CHECK(state.average(3) == doctest::Approx(0.5));
  state.append(no_row, no_row);
  state.observe(weights{1, {0.5f, 0, 0, 0.1f, 0.4f}}, 5, rule);
  CHECK(state.average(0) == doctest::Approx(0.25 * 0.5 + 0.75 * 0.3));
  CHECK(state.average(1) == doctest::Approx(0.75 * 0.1));
  CHECK(state.average(4) == doctest::Approx(0.4));  // its first

  state.evict(5, 2, rule);  // it fits
  CHECK(state.window().size() == 5);
  state.append(no_row, no_row);
  // One token too many: one block of 2 tokens, which is one more than needed, leaves.
  state.observe(weights{1, {0.35f, 0, 0, 0.5f, 0.1f, 0.05f}}, 6, rule);
  CHECK(!state.judgement_due(0));
  state.evict(5, 2, rule);
  CHECK(run_of(state.window()) == list{2, 3, 4, 5});
  CHECK(run_of(state.older()) == list{0, 1});
  CHECK(list_of(state.context()) == list{0});  // 0.35; token 1 has 0.056, salient is 0.5 / 6
  CHECK(state.fits(0, 6, 0));
  CHECK(!state.fits(0, 5, 0));
  CHECK(!state.fits(1, 6, 0));

  CHECK(state.judgement_due(3));  // three queries since the beginning
  CHECK(!state.judgement_due(4));
  CHECK(!state.judgement_due(0));
  state.judge(weights{1, {0.1f, 0.9f}}, rule);  // 0.5 / 2 or more
  CHECK(list_of(state.context()) == list{1});
  CHECK(!state.judgement_due(1));

  state.forget(no_row, no_row);  // token 0, not in the context
  CHECK(list_of(state.context()) == list{1});
  CHECK(run_of(state.older()) == list{1});
  state.forget(no_row, no_row);
  CHECK(state.context().empty());
  state.forget(no_row, no_row);  // of the window
  CHECK(run_of(state.window()) == list{3, 4, 5});
  CHECK(state.average(3) > 0.1);
}

TEST_CASE("moving weights: tokens that leave before a query saw them must be judged") {
  moving_weights::state<format> state;
  const salience_rule rule{.beta = 10, .least_kept = 2};
  for (int i = 0; i < 10; ++i) {
    state.append(no_row, no_row);
  }
  state.evict(4, 3, rule);  // 6 too many: 9 leave
  CHECK(run_of(state.window()) == list{9});
  CHECK(state.context().empty());
  CHECK(state.judgement_due(0));
  // None reaches 10 / 9, two are kept all the same: the largest, over the mean of the heads.
  state.judge(weights{2, {0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0.9f, 0, 0.5f, 0, 0, 0}}, rule);
  CHECK(list_of(state.context()) == list{1, 3});
  CHECK(!state.judgement_due(0));
  CHECK(state.bytes() > 0);
  for (const salience_rule& bad :
       {salience_rule{.alpha = 0}, salience_rule{.alpha = 1.5}, salience_rule{.beta = -1},
        salience_rule{.beta = std::numeric_limits<double>::infinity()}}) {
    CHECK_THROWS_AS(bad.validate(), bad_argument);
  }
  CHECK_NOTHROW((salience_rule{.alpha = 1, .beta = 0}.validate()));
}

TEST_CASE("moving weights: only tokens that no query has seen can be taken back") {
  moving_weights::state<format> state;
  for (int i = 0; i < 3; ++i) {
    state.append(no_row, no_row);
  }
  CHECK(state.may_truncate(0));
  state.observe(weights{1, {0.5f, 0.25f, 0.25f}}, 3, {});
  CHECK(state.may_truncate(3));
  CHECK(!state.may_truncate(2));
  state.append(no_row, no_row);
  CHECK(state.may_truncate(3));
  CHECK(!state.may_truncate(2));
}

TEST_CASE("moving weights: tokens that get lower numbers stay where they were") {
  moving_weights::state<format> state;
  const salience_rule rule{.beta = 0.5, .least_kept = 1};
  for (int i = 0; i < 4; ++i) {
    state.append(no_row, no_row);
  }
  state.observe(weights{1, {0.1f, 0.1f, 0.7f, 0.1f}}, 4, rule);
  state.evict(2, 1, rule);  // 2 too many: 3 leave, and 0.7 is salient
  CHECK(list_of(state.context()) == list{2});
  state.forget(no_row, no_row);
  state.forget(no_row, no_row);
  state.rebase(2);
  CHECK(list_of(state.context()) == list{0});
  CHECK(run_of(state.older()) == list{0});
  CHECK(run_of(state.window()) == list{1});
}

TEST_CASE("wave buffer: a block that was missed is there the next time, as far as there is room") {
  wave_buffer::state<format> state;
  state.hold(11);  // 2 blocks of 4
  const auto fold = [&](const list& blocks, std::uint32_t block_tokens = 4) {
    state.begin(block_tokens);
    std::vector<bool> cached;
    for (const std::uint32_t block : blocks) {
      cached.push_back(state.fetch(block) == residence::cached);
    }
    state.settle();
    return cached;
  };
  CHECK(fold({7, 9}) == std::vector<bool>{false, false});
  CHECK(state.blocks().capacity() == 2);
  CHECK(fold({7, 9}) == std::vector<bool>{true, true});
  CHECK(fold({3}) == std::vector<bool>{false});  // for 7, used longest ago
  CHECK(fold({9, 3}) == std::vector<bool>{true, true});
  CHECK(fold({7}) == std::vector<bool>{false});
  CHECK(fold({7}, 5) == std::vector<bool>{false});  // blocks of another size
  CHECK(fold({7}, 5) == std::vector<bool>{true});
  CHECK(state.bytes() >= 2 * 5 * 128);  // 2 blocks of 5 tokens of K and V
  state.hold(4);
  CHECK(fold({7}, 5) == std::vector<bool>{false});
  CHECK(fold({7}, 5) == std::vector<bool>{false});  // there is no room
}

TEST_CASE(
    "wave buffer: blocks of tokens that are taken back are missed; the others may be renumbered") {
  wave_buffer::state<format> state;
  state.truncate(3, std::tuple<>{});  // before its first use
  state.rebase(4);
  CHECK(state.bytes() == 0);
  state.hold(16);  // 4 blocks of 4
  const auto fold = [&](const list& blocks) {
    state.begin(4);
    std::vector<bool> cached;
    for (const std::uint32_t block : blocks) {
      cached.push_back(state.fetch(block) == residence::cached);
    }
    state.settle();
    return cached;
  };
  fold({0, 1, 2, 3});
  state.truncate(8, std::tuple<>{});  // blocks 0 and 1 are whole
  CHECK(state.blocks().used() == 2);
  CHECK(fold({0, 1, 2, 3}) == std::vector<bool>{true, true, false, false});
  state.truncate(7, std::tuple<>{});
  CHECK(fold({0, 1}) == std::vector<bool>{true, false});
  fold({2, 3});
  state.rebase(8);
  CHECK(fold({0, 1, 2}) == std::vector<bool>{true, true, false});
}

namespace {

template <class S>
using state_of = typename S::template state<format>;
using mean_state = state_of<mean_value>;
using boxes = state_of<page_bounds<16>>;
using keys_in_twelves = state_of<index_keys<16, 12>>;

// Attention teaches three of the summaries; one of these is only a cache.
static_assert(learns<state_of<heavy_hitters>> && learns<state_of<moving_weights>> &&
              learns<state_of<wave_buffer>> && !learns<mean_state> && !learns<boxes> &&
              !learns<state_of<cluster_index>> && !learns<keys_in_twelves>);
static_assert(learns<std::tuple<mean_state, state_of<wave_buffer>>> &&
              !learns<std::tuple<mean_state, boxes>> && !learns<std::tuple<>>);
static_assert(learns_results<state_of<heavy_hitters>> && learns_results<state_of<moving_weights>> &&
              !learns_results<state_of<wave_buffer>> && !learns_results<mean_state>);
static_assert(learns_results<std::tuple<mean_state, state_of<heavy_hitters>>> &&
              !learns_results<std::tuple<mean_state, state_of<wave_buffer>>>);
static_assert(only_built<state_of<cluster_index>> && only_built<state_of<cluster_tree>> &&
              !only_built<mean_state> && !only_built<boxes>);
// All take tokens back; sums take them in any order.
static_assert(forgets_in_any_order<mean_state> && !forgets_in_any_order<boxes> &&
              forgets_in_any_order<std::tuple<mean_state>> &&
              !forgets_in_any_order<std::tuple<mean_state, boxes>>);
static_assert(takes_back<mean_state> && takes_back<boxes> && takes_back<state_of<wave_buffer>> &&
              takes_back<state_of<heavy_hitters>> && takes_back<state_of<moving_weights>> &&
              takes_back<state_of<cluster_index>> && takes_back<state_of<cluster_tree>> &&
              takes_back<keys_in_twelves> && takes_back<std::tuple<mean_state, boxes>>);
static_assert(ignores_keys<mean_state> && !ignores_keys<boxes>);
static_assert(ignores_values<state_of<wave_buffer>> && ignores_values<state_of<heavy_hitters>> &&
              ignores_values<state_of<moving_weights>> && !ignores_values<mean_state>);

struct keeps_all {};  // a state that cannot be renumbered, nor take anything back
static_assert(!takes_back<keeps_all> && !takes_back<std::tuple<mean_state, keeps_all>>);

}  // namespace

TEST_CASE("numbers begin anew at a common multiple of all groups of tokens, if there is one") {
  CHECK(common_multiple(4, 6) == 12);
  CHECK(common_multiple(6, 4) == 12);
  CHECK(common_multiple(16, 1024) == 1024);
  CHECK(common_multiple(1, 1) == 1);
  CHECK(common_multiple(7, 0) == 0);
  CHECK(common_multiple(0, 7) == 0);
  CHECK(common_multiple(0, 0) == 0);
  CHECK(common_multiple(65'535, 65'537) == 0xFFFF'FFFF);  // the largest 32-bit number
  CHECK(common_multiple(65'536, 65'537) == 0);            // 2^16 more than 2^32
  CHECK(rebase_tokens<mean_state> == 1);
  CHECK(rebase_tokens<state_of<wave_buffer>> == 1);
  CHECK(rebase_tokens<boxes> == 16);
  CHECK(rebase_tokens<keeps_all> == 0);
  CHECK(rebase_tokens<std::tuple<>> == 1);
  CHECK(rebase_tokens<std::tuple<mean_state, boxes, keys_in_twelves>> == 48);
  CHECK(rebase_tokens<std::tuple<boxes, keeps_all>> == 0);
}

}  // namespace instinfer::test_learning_states
