// Merging results by their log-sum-exp: against attention over all tokens in fp64, and at the ends.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "instinfer/core/merge_attention.hpp"

namespace instinfer::test_merge_attention {

namespace {

constexpr float inf = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr float most = std::numeric_limits<float>::max();

struct token {
  double logit;
  std::vector<double> value;
};

// One row: softmax attention over tokens, by its definition.
struct row {
  std::vector<float> out;
  float log_sum_exp = -inf;
};
row attention_over(const std::vector<token>& tokens, std::size_t dims) {
  row result{std::vector<float>(dims), -inf};
  double max = -1e300;
  for (const token& t : tokens) {
    max = std::max(max, t.logit);
  }
  double sum = 0;
  std::vector<double> o(dims);
  for (const token& t : tokens) {
    const double p = std::exp(t.logit - max);
    sum += p;
    for (std::size_t i = 0; i < dims; ++i) {
      o[i] += p * t.value[i];
    }
  }
  if (sum > 0) {
    for (std::size_t i = 0; i < dims; ++i) {
      result.out[i] = static_cast<float>(o[i] / sum);
    }
    result.log_sum_exp = static_cast<float>(max + std::log(sum));
  }
  return result;
}

// Merges b into a, as rows of one dim.
void merged(row& a, const row& b) {
  merge_attention(a.out, {&a.log_sum_exp, 1}, b.out, {&b.log_sum_exp, 1});
}

}  // namespace

TEST_CASE("any split of the tokens, merged in any order, is attention over all of them") {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  constexpr std::size_t dims = 5;
  constexpr std::size_t heads = 3;
  for (int round = 0; round < 60; ++round) {
    CAPTURE(round);
    const std::size_t parts = 1 + random() % 5;
    std::vector<std::vector<float>> out(parts);
    std::vector<std::vector<float>> lse(parts);
    std::vector<row> expected;
    for (std::size_t h = 0; h < heads; ++h) {
      std::vector<std::vector<token>> of(parts);
      std::vector<token> all;
      for (std::size_t t = random() % 40; t > 0; --t) {
        token one{(round % 2 == 0 ? 1.0 : 40.0) * normal(random), std::vector<double>(dims)};
        for (double& x : one.value) {
          x = normal(random);
        }
        of[random() % parts].push_back(one);  // some parts stay empty
        all.push_back(one);
      }
      expected.push_back(attention_over(all, dims));
      for (std::size_t p = 0; p < parts; ++p) {
        const row part = attention_over(of[p], dims);
        out[p].insert(out[p].end(), part.out.begin(), part.out.end());
        lse[p].push_back(part.log_sum_exp);
      }
    }
    for (std::size_t last = parts; last > 1; --last) {
      const std::size_t into = random() % (last - 1);
      merge_attention(out[into], lse[into], out[last - 1], lse[last - 1]);
    }
    for (std::size_t h = 0; h < heads; ++h) {
      CHECK((lse[0][h] == expected[h].log_sum_exp ||
             std::abs(lse[0][h] - expected[h].log_sum_exp) <= 2e-5f));
      // A logarithm near 100 is rounded by 4e-6, which is the relative error of a weight.
      for (std::size_t i = 0; i < dims; ++i) {
        CHECK(std::abs(out[0][h * dims + i] - expected[h].out[i]) <= 5e-5f);
      }
    }
  }
}

TEST_CASE("an empty part is neutral on both sides, whatever its output holds") {
  row a{{1.5f, -2.0f}, 0.1f};
  merged(a, {{nan, inf}, -inf});
  CHECK(a.out == std::vector<float>{1.5f, -2.0f});
  CHECK(a.log_sum_exp == 0.1f);
  row empty{{nan, 7.0f}, -inf};
  merged(empty, a);
  CHECK(empty.out == a.out);
  CHECK(empty.log_sum_exp == 0.1f);
  row none{{0.0f, 0.0f}, -inf};
  merged(none, {{0.0f, 0.0f}, -inf});
  CHECK(none.out == std::vector<float>{0.0f, 0.0f});
  CHECK(none.log_sum_exp == -inf);
}

TEST_CASE("exact at the ends: equal parts, parts without weight, the largest numbers") {
  row a{{1.0f, 3.0f}, 2.5f};
  merged(a, {{3.0f, -3.0f}, 2.5f});  // equal weights
  CHECK(a.out == std::vector<float>{2.0f, 0.0f});
  CHECK(a.log_sum_exp == doctest::Approx(2.5 + std::log(2.0)).epsilon(1e-7));

  row heavy{{1.0f, 3.0f}, 300.0f};
  merged(heavy, {{most, -most}, -300.0f});  // e^-600 of the weight
  CHECK(heavy.out == std::vector<float>{1.0f, 3.0f});
  CHECK(heavy.log_sum_exp == 300.0f);
  row light{{most, -most}, -3e38f};
  merged(light, {{1.0f, 3.0f}, 3e38f});
  CHECK(light.out == std::vector<float>{1.0f, 3.0f});
  CHECK(light.log_sum_exp == 3e38f);

  for (const float other : {2.5f, 0.1f, 3.7f, -9.0f}) {
    row large{{most, -most, most}, 2.5f};
    merged(large, {{most, -most, -most}, other});
    CHECK(large.out[0] <= most);
    CHECK(large.out[0] >= most * (1 - 1e-6f));
    CHECK(large.out[1] == -large.out[0]);
    const double share = 1 / (1 + std::exp(static_cast<double>(other) - 2.5));
    CHECK(large.out[2] / most == doctest::Approx(2 * share - 1).epsilon(1e-6).scale(1.0));
  }
}

TEST_CASE("parts that do not fit, and logarithms that are none, are refused and change nothing") {
  const auto refusal = [](std::vector<float> out, std::vector<float> lse, std::vector<float> other,
                          std::vector<float> other_lse) {
    const std::vector<float> before = out;
    try {
      merge_attention(out, lse, other, other_lse);
    } catch (const bad_argument& e) {
      CHECK(out == before);
      return std::string(e.what());
    }
    return std::string();
  };
  CHECK(refusal({1, 2}, {0}, {1, 2}, {0}).empty());
  CHECK(refusal({}, {}, {}, {}).empty());
  CHECK(refusal({1, 2}, {0}, {1, 2, 3}, {0}).find("got 2 with 1 and 3 with 1 values") !=
        std::string::npos);
  CHECK(refusal({1, 2}, {0}, {1, 2}, {0, 0}).find("2 with 1 and 2 with 2") != std::string::npos);
  CHECK(refusal({1, 2, 3}, {0, 0}, {1, 2, 3}, {0, 0}).find("[rows, v_dim]") != std::string::npos);
  CHECK(refusal({1}, {}, {1}, {}).find("[rows, v_dim]") != std::string::npos);
  CHECK(refusal({1, 2}, {0, 0}, {1, 2}, {0, nan}).find("is nan in row 1") != std::string::npos);
  CHECK(refusal({1, 2}, {0, inf}, {1, 2}, {0, 0}).find("is inf in row 1") != std::string::npos);
}

}  // namespace instinfer::test_merge_attention
