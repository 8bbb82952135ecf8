// Biases, masks with holes, learned sinks and queries that are not causal, against fp64 by their
// definitions.

#include <doctest/doctest.h>

#include <functional>
#include <random>
#include <vector>

#include "instinfer/flash/engine.hpp"
#include "instinfer/layout/dim_indexed.hpp"
#include "suite.hpp"
#include "transcription.hpp"

using namespace instinfer;

namespace {

using format = kv_format<fp16, 64>;
using test::row_vector;

using by_dims =
    design<attention::dense, layout::dim_indexed<>, flash::instcsd, transfer::in_storage>;
using cpu_dense = cpu::engine<insta, format>;
using cpu_by_dims = cpu::engine<by_dims, format>;
using cpu_sparf = cpu::engine<insta_sparf, format>;
using reference_dense = reference::engine<insta, format>;
using reference_sparf = reference::engine<insta_sparf, format>;

constexpr double lowest = -std::numeric_limits<double>::infinity();

std::vector<float> random_values(unsigned seed, std::size_t n, float scale) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& x : values) {
    x = scale * normal(random);
  }
  return values;
}

// What a call adds to scale, cap and window, as functions of the definition.
struct extras {
  std::function<double(int head, int query, int token)> bias{};  // of positions
  std::function<bool(int token)> shown{};
  std::vector<float> sinks{};  // [q_heads]
  bool causal = true;
};

struct call {
  int tokens = 0;
  int first = 0;  // the oldest live token
  int queries = 1;
  int kv_heads = 2;
  int group = 1;
};

// The logits of query i and head h over tokens [0, tokens), -inf where it sees nothing.
row_vector logits_of(const test::random_cache<format>& data, const call& c,
                     std::span<const float> q, int h, int i, const logit_rule& rule,
                     const extras& more) {
  const int at = more.causal ? c.tokens - c.queries + i : c.tokens - 1;
  row_vector query(64);
  for (int d = 0; d < 64; ++d) {
    query[d] =
        static_cast<double>(q[static_cast<std::size_t>((i * c.kv_heads * c.group + h) * 64 + d)]);
  }
  const test::matrix K = data.K(h / c.group, 0, c.tokens);
  row_vector logits = row_vector::Constant(c.tokens, lowest);
  for (const int t : test::defined_visible(c.first, at + 1, rule)) {
    if (!more.shown || more.shown(t)) {
      logits[t] = test::defined_logit(query.dot(K.row(t)), 64, rule) +
                  (more.bias ? more.bias(h, at, t) : 0.0);
    }
  }
  return logits;
}

// Attends and compares every row with softmax over the visible tokens and the sink. Returns the
// traffic.
template <class Engine>
traffic check_call(const call& c, const logit_rule& rule, const extras& more,
                   std::span<const float> bias = {}, const index_set* visible = nullptr,
                   const parallel::in_parts<parallel::serial>& workers = {3, {}}) {
  CAPTURE(c.tokens);
  CAPTURE(c.queries);
  CAPTURE(c.group);
  const int q_heads = c.kv_heads * c.group;
  const test::random_cache<format> data(31, c.tokens, q_heads, c.kv_heads);
  const auto values = static_cast<std::size_t>(c.queries * q_heads) * 64;
  const std::vector<float> q = random_values(32, values, 1.0f);
  Engine engine({.layers = 2, .q_heads = q_heads, .kv_heads = c.kv_heads},
                {.bytes = 32 << 20, .context_tokens = 8192}, {}, rule);
  const sequence seq = engine.open();
  for (const int layer : {0, 1}) {
    engine.append(seq, layer, data.k, data.v);
  }
  engine.reclaim(seq, {.tokens_before = static_cast<std::uint32_t>(c.first)});
  std::vector<float> out(values, -1.0f);
  std::vector<float> lse(values / 64);
  const attend_request request{.seq = seq,
                               .q = q,
                               .out = out,
                               .log_sum_exp = lse,
                               .bias = bias,
                               .visible = visible,
                               .causal = more.causal};
  typename Engine::scratch work;
  const traffic moved = engine.attend(std::span(&request, 1), 1, work, workers).traffic;
  for (int i = 0; i < c.queries; ++i) {
    for (int h = 0; h < q_heads; ++h) {
      const row_vector logits = logits_of(data, c, q, h, i, rule, more);
      row_vector with_sink(c.tokens + 1);
      with_sink << logits, more.sinks.empty()
                               ? lowest
                               : static_cast<double>(more.sinks[static_cast<std::size_t>(h)]);
      const row_vector expected =
          test::defined_softmax(with_sink).head(c.tokens) * data.V(h / c.group, 0, c.tokens);
      const auto row = static_cast<std::size_t>(i * q_heads + h);
      CHECK(test::relative_error(std::span(out).subspan(row * 64, 64), expected) <=
            2 * test::tolerance<typename Engine::path>(c.tokens));
      const double all = test::defined_log_sum_exp(with_sink);
      CHECK((static_cast<double>(lse[row]) == all ||
             std::abs(static_cast<double>(lse[row]) - all) <= 5e-6 * (10 + std::abs(all))));
    }
  }
  return moved;
}

// A bias for each query, head and live token, and the same as a function.
struct token_bias {
  std::vector<float> values;
  extras more;

  explicit token_bias(const call& c, bool causal = true)
      : values{random_values(
            33, static_cast<std::size_t>(c.queries * c.kv_heads * c.group * (c.tokens - c.first)),
            2.0f)} {
    more.causal = causal;
    // Causal queries are told apart by their positions; others must all have the same bias here.
    const int live = c.tokens - c.first;
    const int heads = c.kv_heads * c.group;
    for (std::size_t i = static_cast<std::size_t>(heads * live); !causal && i < values.size();
         ++i) {
      values[i] = values[i - static_cast<std::size_t>(heads * live)];
    }
    more.bias = [this, c, live, heads, causal](int h, int at, int t) {
      const int query = causal ? at - (c.tokens - c.queries) : 0;
      return static_cast<double>(
          values[static_cast<std::size_t>((query * heads + h) * live + t - c.first)]);
    };
  }
  token_bias(const token_bias&) = delete;
};

}  // namespace

TEST_CASE_TEMPLATE("ALiBi: slope times distance, for each query head", Engine, cpu_dense,
                   cpu_by_dims, reference_dense) {
  const bool slow = !std::is_same_v<Engine, cpu_dense>;
  for (const int group : {1, 3, 4, 9}) {
    std::vector<float> slopes;
    for (int h = 0; h < 2 * group; ++h) {
      slopes.push_back(
          std::exp2(-8.0f * static_cast<float>(h + 1) / static_cast<float>(2 * group)));
    }
    const extras more{.bias = [&](int h, int at, int t) {
      return -static_cast<double>(slopes[static_cast<std::size_t>(h)]) * (at - t);
    }};
    for (const logit_rule& rule :
         {logit_rule{.slopes = slopes}, logit_rule{.soft_cap = 3.0f, .slopes = slopes},
          logit_rule{.window = 50, .sinks = 3, .slopes = slopes}}) {
      for (const int tokens : {1, 15, 33, 100, slow ? 300 : 5000}) {
        check_call<Engine>({.tokens = tokens, .group = group}, rule, more);
        check_call<Engine>({.tokens = tokens, .first = tokens / 3, .group = group}, rule, more);
      }
      check_call<Engine>({.tokens = 90, .first = 20, .queries = 4, .group = group}, rule, more);
    }
  }
}

TEST_CASE_TEMPLATE("T5: a table by distance, whose last column goes on", Engine, cpu_dense,
                   reference_dense) {
  for (const int distances : {1, 7, 400}) {
    const std::vector<float> table =
        random_values(34, static_cast<std::size_t>(6 * distances), 1.5f);
    const extras more{.bias = [&](int h, int at, int t) {
      const int column = std::min(at - t, distances - 1);
      return static_cast<double>(table[static_cast<std::size_t>(h * distances + column)]);
    }};
    for (const int tokens : {1, 40, 300}) {
      check_call<Engine>({.tokens = tokens, .group = 3}, {.distance_bias = table}, more);
    }
    check_call<Engine>({.tokens = 64, .first = 5, .queries = 5, .group = 3},
                       {.distance_bias = table}, more);
  }
}

TEST_CASE_TEMPLATE("a bias for each query, head and token, and all kinds at once", Engine,
                   cpu_dense, cpu_by_dims, reference_dense) {
  for (const call& c :
       {call{.tokens = 1}, call{.tokens = 77, .first = 30, .group = 5},
        call{.tokens = 200, .queries = 3, .group = 2},
        call{.tokens = 130, .first = 64, .queries = 6, .kv_heads = 1, .group = 8}}) {
    const token_bias own(c);
    check_call<Engine>(c, {.soft_cap = 5.0f}, own.more, own.values);

    const auto heads = static_cast<std::size_t>(c.kv_heads * c.group);
    const std::vector<float> slopes = random_values(35, heads, 0.05f);  // of both signs
    const std::vector<float> table = random_values(36, 20 * heads, 1.0f);
    extras all = own.more;
    all.bias = [&](int h, int at, int t) {
      const auto head = static_cast<std::size_t>(h);
      return own.more.bias(h, at, t) - static_cast<double>(slopes[head]) * (at - t) +
             static_cast<double>(table[head * 20 + static_cast<std::size_t>(std::min(at - t, 19))]);
    };
    check_call<Engine>(c, {.slopes = slopes, .distance_bias = table}, all, own.values);
  }
}

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

TEST_CASE_TEMPLATE(
    "SparF ranks tokens by biased logits, folds with them, and takes masks and sinks", Engine,
    cpu_sparf, reference_sparf) {
  constexpr int tokens = 300;
  const test::random_cache<format> data(37, tokens, 3, 1);
  const std::vector<float> slopes{0.02f, 0.05f, 0.1f};
  const std::vector<float> sinks{0.0f, 2.0f, 5.0f};
  for (const bool masked : {false, true}) {
    const auto hidden = [&](int t) { return masked && t % 5 == 1; };
    index_set shown;
    std::vector<int> visible;
    for (int t = 0; t < tokens; ++t) {
      if (!hidden(t)) {
        shown.add(static_cast<std::uint32_t>(t));
        visible.push_back(t);
      }
    }
    Engine engine({.layers = 1, .q_heads = 3, .kv_heads = 1}, test::small_capacity, {},
                  {.slopes = slopes, .sink_logits = sinks});
    const sequence seq = engine.open();
    engine.append(seq, 0, data.k, data.v);
    std::vector<float> out(3 * 64);
    const attend_request request{
        .seq = seq, .q = data.q, .out = out, .visible = masked ? &shown : nullptr};
    typename Engine::scratch work;
    test::recorder seen(1);
    engine.attend(std::span(&request, 1), 0, work, parallel::serial{}, seen);
    const auto& dims = seen.heads[0].chosen[static_cast<int>(attention::operation::top_dims)].at(0);
    const auto& kept =
        seen.heads[0].chosen[static_cast<int>(attention::operation::top_tokens)].at(0);

    const test::matrix K = data.K(0, 0, tokens);
    const test::matrix V = data.V(0, 0, tokens);
    const auto bias = [&](int h, int t) {
      return -static_cast<double>(slopes[static_cast<std::size_t>(h)]) * (tokens - 1 - t);
    };
    test::matrix p(3, tokens);
    for (int h = 0; h < 3; ++h) {
      const row_vector q = data.Q(h);
      double norm = 0;
      row_vector logits = row_vector::Zero(tokens);
      for (const int i : dims) {
        norm += std::abs(q[i]);
        logits += q[i] * K.col(i).transpose();
      }
      logits /= 8.0 * std::sqrt(norm / q.cwiseAbs().sum());
      for (int t = 0; t < tokens; ++t) {
        logits[t] = hidden(t) ? lowest : logits[t] + bias(h, t);
      }
      p.row(h) = test::defined_softmax(logits);
    }
    const int k = test::defined_kept(1.0 / 16, static_cast<int>(visible.size()));
    CHECK(kept == test::largest(p.colwise().sum(), k));
    for (int h = 0; h < 3; ++h) {
      row_vector exact = data.Q(h) * K(kept, Eigen::all).transpose() / 8.0;
      for (std::size_t j = 0; j < kept.size(); ++j) {
        exact[static_cast<Eigen::Index>(j)] += bias(h, kept[j]);
      }
      const double alpha = p.row(h)(kept).sum();
      row_vector o = test::defined_softmax(exact) * V(kept, Eigen::all);
      double estimate = test::defined_log_sum_exp(exact);
      if (!masked) {  // a mask hides values from the mean
        o = alpha * o + (1 - alpha) * V.colwise().mean();
        estimate -= std::log(alpha);
      }
      const double sink = static_cast<double>(sinks[static_cast<std::size_t>(h)]);
      o *= 1 / (1 + std::exp(sink - estimate));
      CHECK(test::relative_error(std::span(out).subspan(static_cast<std::size_t>(h) * 64, 64), o) <=
            test::tolerance<typename Engine::path>(tokens));
    }
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

TEST_CASE("biases and masks that do not fit are refused, and change nothing") {
  cpu_dense engine({.layers = 1, .q_heads = 2, .kv_heads = 1}, test::small_capacity);
  const sequence seq = engine.open();
  const std::vector<fp16> rows(10 * 64);
  engine.append(seq, 0, rows, rows);
  const std::vector<float> q(128);
  std::vector<float> out(128, 7.0f);
  cpu_dense::scratch work;
  const auto why = [&](std::vector<float> bias) {
    const attend_request request{.seq = seq, .q = q, .out = out, .bias = bias};
    try {
      engine.attend(std::span(&request, 1), 0, work, parallel::serial{});
    } catch (const bad_argument& e) {
      CHECK(out == std::vector<float>(128, 7.0f));
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(
      why(std::vector<float>(19)) ==
      "attend: bias must be empty or 1 queries times query heads times live tokens, 20 values, got 19");
  std::vector<float> hiding(20);
  hiding[13] = -std::numeric_limits<float>::infinity();
  CHECK(
      why(hiding) ==
      "attend: bias must be finite, is not at value 13; tokens are hidden by attend_request::visible");
  CHECK(why(std::vector<float>(20)).empty());
  CHECK_THROWS_WITH_AS(
      (cpu_dense({.layers = 1, .q_heads = 2, .kv_heads = 1}, {}, {}, {.slopes = hiding})),
      doctest::Contains("logit_rule.slopes must be empty or [q_heads]"), bad_argument);
}
