// The mask, the scale and the soft cap, by their definitions.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "instinfer/core/logit_rule.hpp"

namespace instinfer::test_logit_rule {

namespace {

std::vector<std::uint32_t> visible(const logit_rule& rule, std::uint32_t first,
                                   std::uint32_t last) {
  index_set set;
  rule.visible(first, last, set);
  std::vector<std::uint32_t> tokens;
  set.view().for_each([&](std::uint32_t t) { tokens.push_back(t); });
  return tokens;
}

std::string refusal(const logit_rule& rule) {
  try {
    rule.validate();
  } catch (const bad_argument& e) {
    return e.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a window of n shows the n newest tokens, sinks the oldest live ones") {
  using list = std::vector<std::uint32_t>;
  CHECK(visible({}, 3, 7) == list{3, 4, 5, 6});
  CHECK(visible({.window = 1}, 3, 7) == list{6});
  CHECK(visible({.window = 3}, 3, 7) == list{4, 5, 6});
  CHECK(visible({.window = 4}, 3, 7) == list{3, 4, 5, 6});
  CHECK(visible({.window = 2, .sinks = 1}, 3, 7) == list{3, 5, 6});
  CHECK(visible({.window = 2, .sinks = 2}, 3, 7) == list{3, 4, 5, 6});
  CHECK(visible({.window = 5}, 3, 3).empty());
}

TEST_CASE("a token is visible if it is among the window's newest or the oldest sinks") {
  for (std::uint32_t first = 0; first < 4; ++first) {
    for (std::uint32_t last = first; last < first + 9; ++last) {
      for (std::uint32_t window = 0; window < 11; ++window) {
        for (std::uint32_t sinks = 0; sinks < 11; ++sinks) {
          std::vector<std::uint32_t> expected;
          for (std::uint32_t t = first; t < last; ++t) {
            if (window == 0 || last - t <= window || t - first < sinks) {
              expected.push_back(t);
            }
          }
          REQUIRE(visible({.window = window, .sinks = sinks}, first, last) == expected);
        }
      }
    }
  }
}

TEST_CASE("scale: one over the square root of the head size, or the rule's own") {
  CHECK(logit_rule{}.scale_for<double>(64) == 0.125);
  CHECK(logit_rule{}.scale_for<float>(16) == 0.25f);
  CHECK(logit_rule{.scale = 0.5f}.scale_for<double>(64) == 0.5);
}

TEST_CASE("soft cap: cap times tanh of the logit over the cap; none by default") {
  CHECK(logit_rule{}.capped(1e30) == 1e30);
  const logit_rule capped{.soft_cap = 4};
  for (const double x : {-100.0, -1.0, 0.0, 0.5, 3.0}) {
    CHECK(capped.capped(x) == doctest::Approx(4 * std::tanh(x / 4)).epsilon(1e-15));
  }
}

TEST_CASE("a rule that means nothing is refused by the name of its field") {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  constexpr float infinity = std::numeric_limits<float>::infinity();
  CHECK(refusal({}).empty());
  CHECK(refusal({.scale = 0.1f, .soft_cap = 50, .window = 8, .sinks = 4}).empty());
  for (const float bad : {nan, infinity, -1.0f}) {
    CHECK(refusal({.scale = bad}).find("logit_rule.scale must be finite and >= 0") == 0);
    CHECK(refusal({.soft_cap = bad}).find("logit_rule.soft_cap must be finite and >= 0") == 0);
  }
  CHECK(refusal({.sinks = 4}) == "logit_rule.sinks are for a window, got 4 without one");
}

TEST_CASE("arrays of a rule fit the model and are finite, or are refused by name") {
  const auto why = [](const logit_rule& rule) {
    try {
      rule.validate_arrays(3, 4);
    } catch (const bad_argument& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  const std::vector<float> values(13, 0.5f);
  const auto first = [&](std::size_t n) { return std::span(values).first(n); };
  CHECK(why({}).empty());
  CHECK(why({.slopes = first(4), .distance_bias = first(8), .sink_logits = first(12)}).empty());
  CHECK(why({.distance_bias = first(4), .sink_logits = first(4)}).empty());
  CHECK(why({.slopes = first(8)}) ==
        "logit_rule.slopes must be empty or [q_heads] with q_heads = 4, got 8 values");
  CHECK(why({.distance_bias = first(13)}) ==
        "logit_rule.distance_bias must be empty or [q_heads, n] with q_heads = 4, got 13 values");
  CHECK(
      why({.sink_logits = first(8)}) ==
      "logit_rule.sink_logits must be empty or [q_heads] or [layers, q_heads] with q_heads = 4, got 8 values");
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    const std::vector<float> with{0.0f, 1.0f, bad, 0.0f};
    CHECK(why({.slopes = with}).find("logit_rule.slopes must be finite, has ") == 0);
    CHECK(why({.distance_bias = with}).find("logit_rule.distance_bias must be finite") == 0);
    CHECK(why({.sink_logits = with}).find("logit_rule.sink_logits must be finite") == 0);
  }
}

TEST_CASE("sink logits of a layer's heads: of all layers alike, or of each") {
  const std::vector<float> values{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  const auto of = [](std::span<const float> x) { return std::vector<float>(x.begin(), x.end()); };
  const logit_rule each{.sink_logits = values};
  CHECK(of(each.sink_logits_of(0, 2, 2, 4)) == std::vector<float>{2, 3});
  CHECK(of(each.sink_logits_of(2, 0, 2, 4)) == std::vector<float>{8, 9});
  const logit_rule alike{.sink_logits = std::span(values).first(4)};
  CHECK(of(alike.sink_logits_of(2, 2, 2, 4)) == std::vector<float>{2, 3});
  CHECK(logit_rule{}.sink_logits_of(2, 2, 2, 4).empty());
}

}  // namespace instinfer::test_logit_rule
