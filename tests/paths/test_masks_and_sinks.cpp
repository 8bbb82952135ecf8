// Masks with holes, learned sinks, and queries that are not causal.

#include <doctest/doctest.h>

#include <vector>

#include "defined_call.hpp"
#include "instinfer/flash/engine.hpp"

using namespace instinfer;

namespace {

using test::call;
using test::check_call;
using test::extras;
using test::random_values;
using test::token_bias;

using format = test::called_format;
using test::cpu_by_dims;
using test::cpu_dense;
using test::cpu_sparf;
using test::reference_dense;

}  // namespace

TEST_CASE_TEMPLATE("a mask with holes: hidden tokens have no weight, and their pages are not read",
                   Engine, cpu_dense, cpu_by_dims, reference_dense) {
  const auto check = [](const call& c, const logit_rule& rule,
                        const std::function<bool(int)>& show) {
    index_set shown;
    for (int t = 0; t < c.tokens; ++t) {
      if (show(t)) {
        shown.add(static_cast<std::uint32_t>(t));
      }
    }
    return check_call<Engine>(c, rule, {.shown = show}, {}, &shown);
  };
  const auto all = [](int) { return true; };
  for (const call& c : {call{.tokens = 320, .group = 3}, call{.tokens = 333, .first = 100},
                        call{.tokens = 320, .queries = 4, .group = 2}}) {
    check(c, {}, [](int t) { return t % 3 != 0; });
    check(c, {.window = 100, .sinks = 7}, [](int t) { return t % 40 < 11; });
    check(c, {}, [](int t) { return t < 90 || t > 210; });
    check(c, {}, [](int) { return false; });  // zeros
    const std::uint64_t whole = check(c, {}, all).pages_read;
    CHECK(whole > 0);
    CHECK(check(c, {}, [](int t) { return t >= 300; }).pages_read <= whole / 3);
    CHECK(check(c, {}, [](int) { return false; }).pages_read == 0);
  }
}

TEST_CASE_TEMPLATE("learned sinks add to the denominator, for each head, and to log-sum-exp",
                   Engine, cpu_dense, reference_dense) {
  for (const int group : {1, 3}) {
    std::vector<float> sinks(static_cast<std::size_t>(2 * group), 100.0f);  // of another layer
    for (int h = 0; h < 2 * group; ++h) {
      sinks.push_back(static_cast<float>(h) * 3.0f - 2.0f);
    }
    const extras more{.sinks = {sinks.end() - 2 * group, sinks.end()}};
    const logit_rule each{.sink_logits = sinks};  // [layers, q_heads]; the second layer attends
    const logit_rule alike{.window = 30, .sinks = 2, .sink_logits = more.sinks};
    for (const int tokens : {0, 1, 40, 300}) {
      check_call<Engine>({.tokens = tokens, .group = group}, each, more);
      check_call<Engine>({.tokens = tokens, .group = group}, alike, more);
    }
    check_call<Engine>({.tokens = 60, .queries = 4, .group = group}, each, more);
  }
}

TEST_CASE_TEMPLATE("queries that are not causal see all tokens, even more queries than tokens",
                   Engine, cpu_dense, cpu_by_dims, reference_dense) {
  const std::vector<float> slopes{0.1f, 0.2f, 0.4f, 0.8f, 0.05f, 0.0f};
  for (const call& c : {call{.tokens = 3, .queries = 7, .group = 3},
                        call{.tokens = 100, .first = 40, .queries = 4, .group = 3},
                        call{.tokens = 5, .queries = 1, .group = 3}}) {
    check_call<Engine>(c, {}, {.causal = false});
    check_call<Engine>(c, {.window = 20, .sinks = 1}, {.causal = false});
    check_call<Engine>(c, {.slopes = slopes},
                       {.bias =
                            [&](int h, int at, int t) {
                              return -static_cast<double>(slopes[static_cast<std::size_t>(h)]) *
                                     (at - t);
                            },
                        .causal = false});
    const token_bias own(c, false);
    check_call<Engine>(c, {}, own.more, own.values);
  }
}

TEST_CASE("SparF's queries that are not causal are as each alone") {
  const test::random_cache<format> data(38, 150, 6, 2);
  const std::vector<float> q = random_values(39, 3 * 6 * 64, 1.0f);
  cpu_sparf engine({.layers = 1, .q_heads = 6, .kv_heads = 2}, test::small_capacity);
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  std::vector<float> out(q.size());
  const attend_request all{.seq = seq, .q = q, .out = out, .causal = false};
  cpu_sparf::scratch work;
  engine.attend(std::span(&all, 1), 0, work, parallel::serial{});
  for (std::size_t i = 0; i < 3; ++i) {
    std::vector<float> alone(6 * 64);
    engine.attend(seq, 0, std::span(q).subspan(i * alone.size(), alone.size()), alone);
    CHECK(std::equal(alone.begin(), alone.end(),
                     out.begin() + static_cast<std::ptrdiff_t>(i * alone.size())));
  }
}

TEST_CASE("on the drive's clock a mask costs fewer pages, and a bias nothing") {
  flash::engine<insta, format> clock({.layers = 1, .q_heads = 2, .kv_heads = 1}, {});
  const sequence seq = clock.open();
  clock.append_count(seq, 0, 640);
  const std::vector<float> q(128, 0.5f);
  std::vector<float> out(128);
  const std::vector<float> bias(2 * 640, 1.0f);
  attend_request request{.seq = seq, .q = q, .out = out};
  const flash::receipt plain = clock.attend_batch(0, std::span(&request, 1));
  request.bias = bias;
  const flash::receipt biased = clock.attend_batch(0, std::span(&request, 1));
  CHECK(biased.traffic == plain.traffic);
  CHECK(biased.total_ns() == plain.total_ns());
  index_set shown;
  shown.add(0, 64);
  request.visible = &shown;
  const flash::receipt masked = clock.attend_batch(0, std::span(&request, 1));
  CHECK(plain.traffic.pages_read == 40);  // pages of 32 tokens
  CHECK(masked.traffic.pages_read == 4);
  CHECK(masked.total_ns() < plain.total_ns());
}
