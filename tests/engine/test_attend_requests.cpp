// What a request may carry, by the definition: several sequences, several queries, biases over live
// tokens, learned sinks, log_sum_exp; and a request that fails.

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <vector>

#include "instinfer/reference.hpp"
#include "tests/support/definitions.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test_attend_requests {

namespace {

using format = kv_format<fp16, 64>;
using engine_type = reference::engine<insta, format>;
constexpr int dim = 64;
constexpr int kv_heads = 2;
constexpr int group = 3;  // other than kv_heads
constexpr int q_heads = kv_heads * group;

struct filled {
  engine_type engine;
  std::mt19937 random{5};
  std::vector<sequence> sequences;
  std::vector<std::vector<fp16>> k, v;  // [sequences][tokens, kv_heads, dim]

  explicit filled(const std::vector<int>& tokens, const logit_rule& rule = {})
      : engine{{.layers = 2, .q_heads = q_heads, .kv_heads = kv_heads},
               {.bytes = 4 << 20, .context_tokens = 256},
               {},
               rule} {
    for (const int n : tokens) {
      sequences.push_back(engine.open());
      for (auto* values : {&k, &v}) {
        for (values->emplace_back(); values->back().size() < std::size_t(n) * kv_heads * dim;) {
          values->back().push_back(from_float<fp16>(drawn()));
        }
      }
      for (const int layer : {0, 1}) {
        engine.append(sequences.back(), layer, k.back(), v.back());
      }
    }
  }
  float drawn() { return normal_distribution()(random); }
  std::vector<float> queries(int n) {
    std::vector<float> q(static_cast<std::size_t>(n) * q_heads * dim);
    std::ranges::generate(q, [&] { return drawn(); });
    return q;
  }
  // Rows [first, last) of a head.
  static test::matrix rows(const std::vector<fp16>& all, int kv_head, int first, int last) {
    test::matrix m(last - first, dim);
    for (int t = first; t < last; ++t) {
      for (int i = 0; i < dim; ++i) {
        const auto at = static_cast<std::size_t>((t * kv_heads + kv_head) * dim + i);
        m(t - first, i) = static_cast<double>(to_float(all[at]));
      }
    }
    return m;
  }
  test::row_vector logits(std::size_t seq, const float* q, int head, int first, int last) const {
    test::row_vector query(dim);
    std::copy_n(q + head * dim, dim, query.data());
    return test::defined_logits(query, rows(k[seq], head / group, first, last), test::no_rule{});
  }
  // `sink`: the logit of a token without a value.
  void check_out(const float* out, const test::row_vector& of, std::size_t seq, int head, int first,
                 double sink = -INFINITY) const {
    test::row_vector with_sink(of.size() + 1);
    with_sink << of, sink;
    const int last = first + static_cast<int>(of.size());
    const test::row_vector right =
        test::defined_softmax(with_sink).head(of.size()) * rows(v[seq], head / group, first, last);
    for (int i = 0; i < dim; ++i) {
      CHECK(static_cast<double>(out[head * dim + i]) ==
            doctest::Approx(right[i]).epsilon(1e-5).scale(1));
    }
  }
};

void attend(engine_type& engine, std::vector<attend_request> batch, int layer) {
  engine_type::scratch work;
  engine.attend(batch, layer, work, parallel::serial{});
}

}  // namespace

TEST_CASE("requests: outputs and log_sum_exp of two sequences") {
  filled f({40, 25});
  const std::vector<float> q = f.queries(2);
  std::vector<float> out(q.size()), sums(2 * q_heads);
  constexpr std::size_t one = q_heads * dim;
  const std::span<const float> in(q);
  const std::span<float> to(out), sums_to(sums);
  attend(f.engine,
         {{.seq = f.sequences[0],
           .q = in.first(one),
           .out = to.first(one),
           .log_sum_exp = sums_to.first(q_heads)},
          {.seq = f.sequences[1],
           .q = in.last(one),
           .out = to.last(one),
           .log_sum_exp = sums_to.last(q_heads)}},
         0);
  for (std::size_t s : {std::size_t{0}, std::size_t{1}}) {
    for (int h = 0; h < q_heads; ++h) {
      const test::row_vector logits = f.logits(s, q.data() + s * one, h, 0, s == 0 ? 40 : 25);
      f.check_out(out.data() + s * one, logits, s, h, 0);
      CHECK(static_cast<double>(sums[s * q_heads + static_cast<std::size_t>(h)]) ==
            doctest::Approx(test::defined_log_sum_exp(logits)));
    }
  }
}

TEST_CASE("requests: three new tokens, each of which sees those up to its own") {
  filled f({40});
  const std::vector<float> q = f.queries(3);
  std::vector<float> out(q.size());
  attend(f.engine, {{.seq = f.sequences[0], .q = q, .out = out}}, 1);
  for (int i = 0; i < 3; ++i) {
    const std::size_t at = static_cast<std::size_t>(i) * q_heads * dim;
    for (int h = 0; h < q_heads; ++h) {
      f.check_out(out.data() + at, f.logits(0, q.data() + at, h, 0, 38 + i), 0, h, 0);
    }
  }
}

TEST_CASE("requests: the sinks of a layer's query heads") {
  std::vector<float> sinks(2 * q_heads);
  for (std::size_t i = 0; i < sinks.size(); ++i) {
    sinks[i] = 0.5f * static_cast<float>(i);
  }
  filled f({40}, {.sink_logits = sinks});
  const std::vector<float> q = f.queries(1);
  std::vector<float> out(q.size());
  for (const int layer : {0, 1}) {
    attend(f.engine, {{.seq = f.sequences[0], .q = q, .out = out}}, layer);
    for (int h = 0; h < q_heads; ++h) {
      f.check_out(out.data(), f.logits(0, q.data(), h, 0, 40), 0, h, 0,
                  0.5 * (layer * q_heads + h));
    }
  }
}

TEST_CASE("requests: a bias has an entry for each token that was not reclaimed") {
  filled f({40});
  f.engine.reclaim(f.sequences[0], {.tokens_before = 32});  // a page of 64 dims has 32 tokens
  const std::vector<float> q = f.queries(1);
  std::vector<float> out(q.size()), bias(q_heads * 8);
  std::ranges::generate(bias, [&] { return f.drawn(); });
  attend(f.engine, {{.seq = f.sequences[0], .q = q, .out = out, .bias = bias}}, 0);
  for (int h = 0; h < q_heads; ++h) {
    test::row_vector logits = f.logits(0, q.data(), h, 32, 40);
    for (int t = 0; t < 8; ++t) {
      logits[t] += static_cast<double>(bias[static_cast<std::size_t>(h * 8 + t)]);
    }
    f.check_out(out.data(), logits, 0, h, 32);
  }
}

TEST_CASE("requests: what an observer throws leaves all outputs as they were") {
  struct failing {
    bool fails;
    attention::no_observer head(std::uint32_t request, std::uint32_t kv_head) {
      if (fails && request == 1 && kv_head == 1) {
        throw std::runtime_error("watched");
      }
      return {};
    }
  };
  filled f({40, 25});
  const std::vector<float> q = f.queries(1);
  const std::vector<float> before(q.size(), -1.0f);
  std::vector<float> first = before, second = before;
  const std::vector<attend_request> batch{{.seq = f.sequences[0], .q = q, .out = first},
                                          {.seq = f.sequences[1], .q = q, .out = second}};
  engine_type::scratch work;
  CHECK_THROWS_WITH_AS(f.engine.attend(batch, 0, work, parallel::serial{}, failing{true}),
                       "watched", std::runtime_error);
  CHECK(first == before);
  CHECK(second == before);
  f.engine.attend(batch, 0, work, parallel::serial{}, failing{false});  // with the same workspace
  for (int h = 0; h < q_heads; ++h) {
    f.check_out(first.data(), f.logits(0, q.data(), h, 0, 40), 0, h, 0);
    f.check_out(second.data(), f.logits(1, q.data(), h, 0, 25), 1, h, 0);
  }
}

}  // namespace instinfer::test_attend_requests
