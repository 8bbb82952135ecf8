// The log-sum-exp that attends give on request, and results over parts of a context, merged by it.

#include <doctest/doctest.h>

#include <vector>

#include "instinfer/core/merge_attention.hpp"
#include "instinfer/flash/engine.hpp"
#include "suite.hpp"

using namespace instinfer;

namespace {

using format = kv_format<bf16, 64>;
using cpu_dense = cpu::engine<insta, format>;
using cpu_sparf = cpu::engine<insta_sparf, format>;
using cpu_sparq = cpu::engine<flexgen_sparq, format>;
using reference_dense = reference::engine<insta, format>;
using reference_sparf = reference::engine<insta_sparf, format>;

constexpr float lowest = -std::numeric_limits<float>::infinity();

// fp32 rounds logits of up to 20 and their sum; the reference rounds its result.
constexpr double lse_bound = 2e-5;

struct results {
  std::vector<float> out;          // [q_heads, 64]
  std::vector<float> log_sum_exp;  // [q_heads]
};

// Tokens [first, last) of the cache as a sequence of `engine`, attended by all queries.
template <class Engine>
results attend_part(Engine& engine, const test::random_cache<format>& data, int first, int last,
                    test::recorder* seen = nullptr) {
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k_tokens(first, last), data.v_tokens(first, last));
  const auto heads = static_cast<std::size_t>(data.q_heads);
  results part{std::vector<float>(heads * 64), std::vector<float>(heads, 1e30f)};
  const attend_request request{
      .seq = seq, .q = data.q, .out = part.out, .log_sum_exp = part.log_sum_exp};
  typename Engine::scratch work;
  test::recorder ignored(data.kv_heads);
  engine.attend(std::span(&request, 1), 0, work, parallel::in_parts{3, parallel::serial{}},
                seen == nullptr ? ignored : *seen);
  return part;
}

template <class Engine>
Engine engine_for(const test::random_cache<format>& data, const logit_rule& rule = {},
                  const typename Engine::policy& policy = {}) {
  return Engine({.layers = 1, .q_heads = data.q_heads, .kv_heads = data.kv_heads},
                {.bytes = 32 << 20, .context_tokens = 8192}, policy, rule);
}

}  // namespace

TEST_CASE_TEMPLATE("log-sum-exp by its definition, under scales, caps and windows", Engine,
                   cpu_dense, reference_dense) {
  const bool reference = std::is_same_v<typename Engine::path, reference::path>;
  for (const logit_rule& rule : {logit_rule{}, logit_rule{.scale = 0.3f, .soft_cap = 7.0f},
                                 logit_rule{.window = 40}, logit_rule{.window = 100, .sinks = 3}}) {
    for (const int tokens : {0, 1, 16, 31, 33, 300, reference ? 400 : 7000}) {
      for (const int group : {1, 3, 9}) {
        CAPTURE(tokens);
        CAPTURE(group);
        const test::random_cache<format> data(21, tokens, 2 * group, 2);
        Engine engine = engine_for<Engine>(data, rule);
        const results mine = attend_part(engine, data, 0, tokens);
        for (int h = 0; h < data.q_heads; ++h) {
          const double expected = test::defined_log_sum_exp(
              test::defined_logits(data.Q(h), data.K(h / group, 0, tokens), rule));
          const auto got = static_cast<double>(mine.log_sum_exp[static_cast<std::size_t>(h)]);
          CHECK((tokens == 0 ? got == expected : std::abs(got - expected) <= lse_bound));
        }
      }
    }
  }
}

TEST_CASE_TEMPLATE("a context over two or three engines, merged, is the context in one", Engine,
                   cpu_dense, reference_dense) {
  const int tokens = std::is_same_v<typename Engine::path, reference::path> ? 300 : 3000;
  for (const logit_rule& rule : {logit_rule{}, logit_rule{.soft_cap = 4.0f}}) {
    for (const std::vector<int>& ends :
         {std::vector{tokens / 3, tokens}, std::vector{0, 17, tokens}, std::vector{1, 200, tokens},
          std::vector{tokens, tokens}}) {
      const test::random_cache<format> data(22, tokens, 6, 2);
      std::vector<results> parts;
      int first = 0;
      for (const int end : ends) {  // some are empty
        Engine engine = engine_for<Engine>(data, rule);
        parts.push_back(attend_part(engine, data, first, end));
        first = end;
      }
      results& all = parts.back();  // the first of them last: the order does not matter
      for (std::size_t p = 0; p + 1 < parts.size(); ++p) {
        merge_attention(all.out, all.log_sum_exp, parts[p].out, parts[p].log_sum_exp);
      }
      Engine engine = engine_for<Engine>(data, rule);
      const results whole = attend_part(engine, data, 0, tokens);
      test::check_dense(data.exact(), all.out, rule, 2 * test::tolerance<cpu::path>(tokens));
      for (std::size_t h = 0; h < whole.log_sum_exp.size(); ++h) {
        CHECK(std::abs(all.log_sum_exp[h] - whole.log_sum_exp[h]) <= 2 * lse_bound);
      }
    }
  }
}

TEST_CASE("two sequences of one engine, in one batch, merge as well") {
  const test::random_cache<format> data(23, 500, 4, 2);
  cpu_dense engine = engine_for<cpu_dense>(data);
  std::vector<std::vector<float>> out(2, std::vector<float>(4 * 64));
  std::vector<std::vector<float>> lse(2, std::vector<float>(4));
  std::vector<attend_request> batch;
  for (std::size_t p = 0; p < 2; ++p) {
    const sequence seq = engine.open();
    const int first = p == 0 ? 0 : 123;
    const int last = p == 0 ? 123 : 500;
    engine.append(seq, 0, data.k_tokens(first, last), data.v_tokens(first, last));
    batch.push_back({.seq = seq, .q = data.q, .out = out[p], .log_sum_exp = lse[p]});
  }
  cpu_dense::scratch work;
  const receipt done = engine.attend(batch, 0, work, parallel::serial{});
  CHECK(done.traffic.link_bytes == 2 * (2 * 4 * 64 * sizeof(bf16) + 4 * sizeof(float)));
  merge_attention(out[0], lse[0], out[1], lse[1]);
  test::check_dense(data.exact(), out[0], {}, test::tolerance<cpu::path>(500));
}

TEST_CASE_TEMPLATE("several queries of a call have a logarithm each", Engine, cpu_dense,
                   reference_dense, cpu_sparf) {
  constexpr int n = 4;
  const test::random_cache<format> data(24, 90, 6, 2);
  const test::random_cache<format> queries(25, 1, 6 * n, 1);
  Engine engine = engine_for<Engine>(data);
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  std::vector<float> out(n * 6 * 64);
  std::vector<float> lse(n * 6);
  const attend_request all{.seq = seq, .q = queries.q, .out = out, .log_sum_exp = lse};
  typename Engine::scratch work;
  engine.attend(std::span(&all, 1), 0, work, parallel::serial{});
  for (int i = 0; i < n; ++i) {
    CAPTURE(i);
    Engine alone = engine_for<Engine>(data);
    const sequence s = alone.open();
    const int tokens = 90 - (n - 1 - i);
    alone.append(s, 0, data.k_tokens(0, tokens), data.v_tokens(0, tokens));
    std::vector<float> one(6 * 64);
    std::vector<float> expected(6);
    const attend_request request{.seq = s,
                                 .q = std::span(queries.q).subspan(i * one.size(), one.size()),
                                 .out = one,
                                 .log_sum_exp = expected};
    alone.attend(std::span(&request, 1), 0, work, parallel::serial{});
    for (std::size_t h = 0; h < 6; ++h) {
      CHECK(std::abs(lse[static_cast<std::size_t>(i) * 6 + h] - expected[h]) <= lse_bound);
    }
  }
}

TEST_CASE_TEMPLATE("SparF and SparQ give their estimate for all tokens: the kept ones over alpha",
                   Engine, cpu_sparf, cpu_sparq, reference_sparf) {
  const int tokens = 400;
  const test::random_cache<format> data(26, tokens, 3, 1);
  Engine engine = engine_for<Engine>(data);
  test::recorder seen(1);
  const results mine = attend_part(engine, data, 0, tokens, &seen);
  const auto& dims = seen.heads[0].chosen[static_cast<int>(attention::operation::top_dims)].at(0);
  const auto& kept = seen.heads[0].chosen[static_cast<int>(attention::operation::top_tokens)].at(0);
  const test::matrix K = data.K(0, 0, tokens);
  for (int h = 0; h < 3; ++h) {
    const test::row_vector q = data.Q(h);
    double norm = 0;
    test::row_vector products = test::row_vector::Zero(tokens);
    for (const int i : dims) {
      norm += std::abs(q[i]);
      products += q[i] * K.col(i).transpose();
    }
    const test::row_vector p =
        test::defined_softmax(products / (8.0 * std::sqrt(norm / q.cwiseAbs().sum())));
    const test::row_vector exact = q * K(kept, Eigen::all).transpose() / 8.0;
    const double alpha = p(kept).sum();
    const double expected = test::defined_log_sum_exp(exact) - std::log(alpha);
    CHECK(std::abs(static_cast<double>(mine.log_sum_exp[static_cast<std::size_t>(h)]) - expected) <=
          lse_bound);
  }
  // Nothing kept: the mean of V, with no weight in a merge.
  Engine none = engine_for<Engine>(data, {}, {.keep_tokens = 0.0});
  CHECK(attend_part(none, data, 0, tokens).log_sum_exp == std::vector<float>(3, lowest));
}

TEST_CASE_TEMPLATE("logarithms beyond fp32 are its largest number, and merge", Engine, cpu_dense,
                   reference_dense) {
  constexpr float largest = std::numeric_limits<float>::max();
  const std::vector<float> q(64, 1e30f);
  const std::vector<bf16> v(64, from_float<bf16>(2.0f));
  for (const float sign : {1.0f, -1.0f}) {
    const std::vector<bf16> k(64, from_float<bf16>(sign * 1e30f));
    Engine engine({.layers = 1, .q_heads = 1, .kv_heads = 1}, {});
    const sequence seq = engine.open();
    engine.append(seq, 0, k, v);
    std::vector<float> out(64), lse(1);
    const attend_request request{.seq = seq, .q = q, .out = out, .log_sum_exp = lse};
    typename Engine::scratch work;
    engine.attend(std::span(&request, 1), 0, work, parallel::serial{});
    CHECK(lse[0] == sign * largest);
    std::vector<float> other(64, 4.0f), of_other(1, 0.0f);
    merge_attention(other, of_other, out, lse);
    CHECK(other == std::vector<float>(64, sign > 0 ? 2.0f : 4.0f));
  }
}

TEST_CASE("a path without data gives what no tokens give, and a wrong length is refused") {
  flash::engine<insta, format> clock({.layers = 1, .q_heads = 2, .kv_heads = 1}, {});
  const sequence seq = clock.open();
  clock.append_count(seq, 0, 100);
  const std::vector<float> q(128, 0.5f);
  std::vector<float> out(128, 7.0f);
  std::vector<float> lse(2, 7.0f);
  attend_request request{.seq = seq, .q = q, .out = out, .log_sum_exp = lse};
  const std::uint64_t more = clock.attend_batch(0, std::span(&request, 1)).traffic.link_bytes;
  CHECK(out == std::vector<float>(128, 0.0f));
  CHECK(lse == std::vector<float>(2, lowest));
  request.log_sum_exp = {};
  CHECK(more == clock.attend_batch(0, std::span(&request, 1)).traffic.link_bytes + 8);
  request.log_sum_exp = std::span(lse).first(1);
  CHECK_THROWS_WITH_AS(clock.attend_batch(0, std::span(&request, 1)),
                       "attend: log_sum_exp must be empty or [1, 2], got 1 elements", bad_argument);
}
