// Biases by slope, by distance and for each token, on the reference and the CPU path.

#include <doctest/doctest.h>

#include <vector>

#include "defined_call.hpp"
#include "transcription.hpp"

using namespace instinfer;

namespace {

using test::call;
using test::check_call;
using test::extras;
using test::lowest;
using test::random_values;
using test::row_vector;
using test::token_bias;

using format = test::called_format;
using test::cpu_by_dims;
using test::cpu_dense;
using test::cpu_sparf;
using test::reference_dense;
using reference_sparf = reference::engine<insta_sparf, format>;

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
