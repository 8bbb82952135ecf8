#include <array>
#include <random>
#include <vector>

#include <doctest/doctest.h>

#include "instinfer/core/softmax_state.hpp"

namespace instinfer::test_softmax_state {

namespace {

constexpr std::size_t dims = 5;
constexpr double inf = std::numeric_limits<double>::infinity();

struct part {
  softmax_state<double> state;
  std::array<double, dims> o{};
};

struct token {
  double logit;
  std::array<double, dims> value;
};

std::vector<token> random_tokens(std::mt19937& random, std::size_t n, double spread) {
  std::normal_distribution<double> normal;
  std::vector<token> tokens(n);
  for (token& t : tokens) {
    t.logit = random() % 10 == 0 ? -inf : spread * normal(random);
    for (double& v : t.value) {
      v = normal(random);
    }
  }
  return tokens;
}

std::array<double, dims> direct(const std::vector<token>& tokens) {
  double max = -inf;
  for (const token& t : tokens) {
    max = std::max(max, t.logit);
  }
  std::array<double, dims> o{};
  double sum = 0;
  for (const token& t : tokens) {
    const double p = t.logit == -inf ? 0.0 : std::exp(t.logit - max);
    sum += p;
    for (std::size_t i = 0; i < dims; ++i) {
      o[i] += p * t.value[i];
    }
  }
  for (double& x : o) {
    x = sum > 0 ? x / sum : 0.0;
  }
  return o;
}

}  // namespace

TEST_CASE("folding in any order and split gives softmax attention") {
  for (unsigned seed = 1; seed <= 100; ++seed) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    std::vector<token> tokens = random_tokens(random, random() % 50, seed % 2 == 0 ? 1.0 : 300.0);
    const auto expected = direct(tokens);
    std::ranges::shuffle(tokens, random);
    std::vector<part> parts(1 + random() % 5);  // some stay empty
    for (const token& t : tokens) {
      part& p = parts[random() % parts.size()];
      fold_entry<double>(p.state, p.o, t.logit, t.value);
    }
    std::ranges::shuffle(parts, random);
    while (parts.size() > 1) {
      const std::size_t into = random() % (parts.size() - 1);
      merge<double>(parts[into].state, parts[into].o, parts.back().state, parts.back().o);
      parts.pop_back();
    }
    for (std::size_t i = 0; i < dims; ++i) {
      CHECK(parts[0].o[i] == doctest::Approx(expected[i]).epsilon(1e-12).scale(1.0));
    }
  }
}

TEST_CASE("the empty state is neutral, and two of them give no NaN") {
  part a;
  part b;
  merge<double>(a.state, a.o, b.state, b.o);
  CHECK(a.state.sum == 0.0);
  CHECK(a.state.log_sum_exp() == -inf);
  CHECK(a.o == std::array<double, dims>{});

  const std::array<double, dims> value{1, 2, 3, 4, 5};
  fold_entry<double>(b.state, b.o, -700.0, value);
  merge<double>(a.state, a.o, b.state, b.o);
  CHECK(a.state.log_sum_exp() == -700.0);
  CHECK(a.o == value);
  merge<double>(b.state, b.o, part{}.state, part{}.o);
  CHECK(b.o == value);
}

TEST_CASE("values near the largest number have a finite mean, also as sums that are merged") {
  constexpr float most = std::numeric_limits<float>::max();
  const std::array<float, 2> plus{most, 3e38f};
  const std::array<float, 2> minus{most, -3e38f};
  softmax_state<float> a, b;
  std::array<float, 2> oa{}, ob{};
  for (int i = 0; i < 3; ++i) {
    fold_entry<float>(a, oa, 0.1f, plus);
    fold_entry<float>(b, ob, 0.1f, minus);
  }
  CHECK(oa[1] == doctest::Approx(3e38f).epsilon(1e-6));
  // Five tokens of weight 2^-4 exp(0.1 - 0.1).
  const softmax_state<float> sums{0.1f, 5 * 0x1p-4f};
  const std::array<float, 2> values{0x1p-4f * most * 5, 0x1p-4f * 3e38f * 5};
  merge<float>(a, oa, b, ob);
  CHECK(oa[0] == doctest::Approx(most).epsilon(1e-6));
  CHECK(std::abs(oa[1]) <= 1e-6f * 3e38f);
  merge_sums<float>(a, oa, sums, values, 0x1p-4f);
  CHECK(a.sum == doctest::Approx(11.0));
  CHECK(oa[0] <= most);
  CHECK(oa[0] == doctest::Approx(most).epsilon(1e-6));
  CHECK(oa[1] == doctest::Approx(3e38 * 5 / 11).epsilon(1e-6));

  softmax_state<float> empty;
  std::array<float, 2> none{};
  merge_sums<float>(empty, none, {}, none, 0x1p-4f);
  CHECK(none == std::array<float, 2>{});
  CHECK(empty.sum == 0.0f);
}

TEST_CASE("a sink is a token without a value, whatever was folded") {
  for (const double sink : {-1000.0, -2.0, 0.5, 3.0, 1000.0}) {
    part with;
    part without;
    const std::array<double, dims> value{1, -1, 2, -2, 3};
    const std::array<double, dims> other{3, 3, 3, 3, 3};
    for (part* p : {&with, &without}) {
      fold_entry<double>(p->state, p->o, 0.25, value);
      fold_entry<double>(p->state, p->o, 1.5, other);
    }
    fold_entry<double>(with.state, with.o, sink, std::array<double, dims>{});
    double all = without.state.log_sum_exp();
    const double left = add_sink(all, sink);
    CHECK(all == doctest::Approx(with.state.log_sum_exp()).epsilon(1e-14));
    for (std::size_t i = 0; i < dims; ++i) {
      CHECK(left * without.o[i] == doctest::Approx(with.o[i]).epsilon(1e-14).scale(1e-300));
    }
  }
  float nothing = -std::numeric_limits<float>::infinity();
  CHECK(add_sink(nothing, -7.0f) == 0.0f);
  CHECK(nothing == -7.0f);
}

TEST_CASE("the log-sum-exp of all tokens from the share of the folded ones") {
  CHECK(log_sum_exp_of_all(3.0, 1.0) == 3.0);
  CHECK(log_sum_exp_of_all(3.0, 0.25) == doctest::Approx(3.0 + std::log(4.0)));
  CHECK(log_sum_exp_of_all(-inf, 0.0) == -inf);
  CHECK(log_sum_exp_of_all(3.0f, 0.0f) == doctest::Approx(3.0 + 126 * std::log(2.0)));
}

TEST_CASE("a weight counts a token that often") {
  part once;
  part weighted;
  const std::array<double, dims> value{1, -1, 2, -2, 3};
  const std::array<double, dims> other{3, 3, 3, 3, 3};
  fold_entry<double>(once.state, once.o, 0.5, other);
  fold_entry<double>(weighted.state, weighted.o, 0.5, other);
  for (int i = 0; i < 7; ++i) {
    fold_entry<double>(once.state, once.o, 1.5, value);
  }
  fold_entry<double>(weighted.state, weighted.o, 1.5, value, 7.0);
  CHECK(once.state.log_sum_exp() == doctest::Approx(weighted.state.log_sum_exp()));
  for (std::size_t i = 0; i < dims; ++i) {
    CHECK(once.o[i] == doctest::Approx(weighted.o[i]));
  }
}

}  // namespace instinfer::test_softmax_state
