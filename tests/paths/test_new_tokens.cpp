// Several new tokens attend in one call, causal among themselves: what each would have got alone,
// before the later ones came.

#include <doctest/doctest.h>

#include "suite.hpp"

using namespace instinfer;

namespace {

using format = kv_format<fp16, 64>;

// Appends `before` tokens and then n at once, and attends for all n. Compares with one token at a
// time. `forgotten`: tokens reclaimed before.
template <class Engine>
void check_new_tokens(unsigned seed, int before, int n, const logit_rule& rule = {},
                      int forgotten = 0, int kv_heads = 2, int group = 3,
                      const typename Engine::policy& policy = {}) {
  CAPTURE(seed);
  CAPTURE(before);
  CAPTURE(n);
  const int q_heads = kv_heads * group;
  const test::random_cache<format> data(seed, before + n, q_heads, kv_heads);
  const test::random_cache<format> queries(seed + 1000, 1, q_heads * n, 1);  // q [n, q_heads, 64]
  const model_shape shape{.layers = 1, .q_heads = q_heads, .kv_heads = kv_heads};
  Engine together(shape, test::small_capacity, policy, rule);
  Engine one_by_one(shape, test::small_capacity, policy, rule);
  const sequence a = together.open();
  const sequence b = one_by_one.open();
  together.append(a, 0, data.k_tokens(0, before), data.v_tokens(0, before));
  one_by_one.append(b, 0, data.k_tokens(0, before), data.v_tokens(0, before));
  together.reclaim(a, {.tokens_before = static_cast<std::uint32_t>(forgotten)});
  one_by_one.reclaim(b, {.tokens_before = static_cast<std::uint32_t>(forgotten)});
  together.append(a, 0, data.k_tokens(before, before + n), data.v_tokens(before, before + n));
  const auto row = static_cast<std::size_t>(q_heads * 64);
  std::vector<float> out(row * static_cast<std::size_t>(n), -1.0f);
  const receipt moved = together.attend(a, 0, queries.q, out);
  CHECK(moved.traffic.link_bytes ==
        2 * row * static_cast<std::size_t>(n) * sizeof(typename Engine::element));
  for (int i = 0; i < n; ++i) {
    CAPTURE(i);
    one_by_one.append(b, 0, data.k_tokens(before + i, before + i + 1),
                      data.v_tokens(before + i, before + i + 1));
    std::vector<float> expected(row);
    const auto at = static_cast<std::size_t>(i) * row;
    one_by_one.attend(b, 0, std::span(queries.q).subspan(at, row), expected);
    for (std::size_t h = 0; h < static_cast<std::size_t>(q_heads); ++h) {
      reference::row_vector exact(64);
      for (std::size_t d = 0; d < 64; ++d) {
        exact[static_cast<Eigen::Index>(d)] = static_cast<double>(expected[h * 64 + d]);
      }
      CHECK(test::relative_error(std::span(out).subspan(at + h * 64, 64), exact) <=
            test::tolerance<typename Engine::path>(before + n));
    }
  }
}

using cpu_dense = cpu::engine<insta, format>;
using cpu_sparf = cpu::engine<insta_sparf, format>;
using reference_dense = reference::engine<insta, format>;
using reference_sparf = reference::engine<insta_sparf, format>;

// Sums of V that are cheap to append to, but can only lose the oldest token.
struct oldest_first {
  template <class Format>
  struct state {
    void append(std::span<const typename Format::element>,
                std::span<const typename Format::element>) noexcept {}
    void forget(std::span<const typename Format::element>,
                std::span<const typename Format::element>) noexcept {}
  };
};
struct with_oldest_first {
  using summaries = attention::summary_list<oldest_first>;
  template <attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    m.fold(q, m.all_tokens(q));
  }
};

}  // namespace

TEST_CASE_TEMPLATE("1 to 9 new tokens, at every place in a page", Engine, cpu_dense,
                   reference_dense, cpu_sparf, reference_sparf) {
  const bool reference = std::is_same_v<typename Engine::path, reference::path>;
  for (int n = 1; n <= 9; ++n) {
    check_new_tokens<Engine>(1, 0, n);                                  // a short prompt
    for (int before = 24; before <= (reference ? 33 : 72); ++before) {  // pages have 32 tokens
      check_new_tokens<Engine>(2, before, n);
    }
    check_new_tokens<Engine>(3, reference ? 90 : 1020, n);  // tiles of K by dim have 1024
  }
}

TEST_CASE_TEMPLATE("masks, caps and windows move with the query", Engine, cpu_dense,
                   reference_dense, cpu_sparf) {
  for (const logit_rule& rule :
       {logit_rule{.window = 3}, logit_rule{.window = 100}, logit_rule{.window = 60, .sinks = 4},
        logit_rule{.window = 117, .sinks = 6}, logit_rule{.window = 122, .sinks = 400},
        logit_rule{.scale = 0.05f, .soft_cap = 5.0f, .window = 1}}) {
    CAPTURE(rule.window);
    for (const int n : {2, 5, 8}) {
      check_new_tokens<Engine>(4, 120, n, rule);
      check_new_tokens<Engine>(5, 120, n, rule, 40);
      check_new_tokens<Engine>(6, 2, n, rule);
    }
  }
}

TEST_CASE("a prompt in one call, and groups of 1 to 9") {
  check_new_tokens<cpu_dense>(7, 0, 70);
  for (int group = 1; group <= 9; ++group) {
    for (const int n : {2, 3, 4, 8}) {
      check_new_tokens<cpu_dense>(8, 100, n, {}, 0, 1, group);
      check_new_tokens<cpu_sparf>(9, 100, n, {}, 0, 1, group);
    }
  }
}

TEST_CASE("common tokens are read once for all queries of a dense call") {
  cpu_dense engine({.layers = 1, .q_heads = 2, .kv_heads = 1}, {});
  const test::random_cache<format> data(10, 640, 2, 1);
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);  // 20 pages of K, 20 of V, of 32 tokens
  const std::vector<float> q(8 * 2 * 64, 0.1f);
  std::vector<float> out(q.size());
  std::vector<float> single(2 * 64);
  CHECK(engine.attend(seq, 0, std::span(q).first(128), single).traffic.pages_read == 40);
  // The last page of K and that of V once more for each of 7 queries that see more than the first
  // does.
  CHECK(engine.attend(seq, 0, q, out).traffic.pages_read == 40 + 7 * 2);
}

TEST_CASE("what cannot be asked for is refused, and the output untouched") {
  cpu_dense engine({.layers = 1, .q_heads = 2, .kv_heads = 1}, {});
  const test::random_cache<format> data(11, 3, 2, 1);
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  std::vector<float> q(4 * 2 * 64, 1.0f);
  std::vector<float> out(q.size(), 7.0f);
  CHECK_THROWS_WITH_AS(engine.attend(seq, 0, q, out),
                       "attend: 4 queries need their tokens appended before, there are 3",
                       bad_argument);
  q[2 * 128 + 64 + 5] = std::numeric_limits<float>::infinity();
  CHECK_THROWS_WITH_AS(
      engine.attend(seq, 0, std::span(q).first(3 * 128), std::span(out).first(3 * 128)),
      "attend: q must be finite, is not at [query 2, head 1, dim 5]", bad_argument);
  CHECK_THROWS_AS(engine.attend(seq, 0, std::span(q).first(2 * 128), out), bad_argument);
  CHECK(out == std::vector<float>(q.size(), 7.0f));

  using refusing =
      design<with_oldest_first, layout::token_indexed<>, flash::instcsd, transfer::in_storage>;
  cpu::engine<refusing, format> other({.layers = 1, .q_heads = 2, .kv_heads = 1}, {});
  const sequence s = other.open();
  other.append(s, 0, data.k, data.v);
  CHECK_THROWS_WITH_AS(
      other.attend(s, 0, std::span(q).first(2 * 128), std::span(out).first(2 * 128)),
      "attend: one query a call, got 2; the policy's summaries cannot leave out the tokens after a query's own",
      bad_argument);
  other.attend(s, 0, std::span(q).first(128), std::span(out).first(128));
  CHECK(out[0] != 7.0f);
}
