// Every method wants the share of dense's bytes that at_budget was asked for, and calibrate() sets
// the thresholds of squeezed.

#include <concepts>
#include <limits>

#include "instinfer/methods.hpp"
#include "instinfer/methods/calibrate.hpp"
#include "tests/support/decoder.hpp"
#include "tests/support/indexed.hpp"

namespace instinfer::test_at_budget {

using namespace test;

namespace {

constexpr int prompt = 992;  // 62 boxes of quest
constexpr int steps = 16;
constexpr int group = 2;

// The mean of wanted bytes over those of dense, for the tokens after a prompt. The queries of the
// prompt's last 64 tokens teach. Squeezed has its mean over the queries that it was calibrated by.
template <class Policy, class Layout = layout::token_indexed<>>
double wanted_share(const Policy& policy, double calibrated = 0) {
  const random_cache<method_format> data(51, prompt + steps, group, 1);
  const random_cache<method_format> queries(52, 1, group * (64 + steps), 1);
  decoder<Policy, cpu::path, Layout> d(policy, group, 1);
  const auto q = [&](int first, int last) {
    return rows_of(queries.q, static_cast<std::size_t>(first * group),
                   static_cast<std::size_t>((last - first) * group));
  };
  d.engine.prefill(d.seq, 0, data.k_tokens(0, prompt), data.v_tokens(0, prompt), q(0, 64));
  if constexpr (std::same_as<Policy, attention::squeezed>) {
    methods::calibrate(d.engine, d.seq, q(0, 64), calibrated);
    std::uint64_t wanted = 0;
    for (int i = 0; i < 64; ++i) {
      wanted += d.engine.attend(d.seq, 0, q(i, i + 1), d.out).traffic.wanted_bytes();
    }
    return static_cast<double>(wanted) / (64 * prompt * 2.0 * 64 * sizeof(float));
  }
  double share = 0;
  for (int i = 0; i < steps; ++i) {
    const int t = prompt + i;
    const receipt done = d.engine.decode(d.seq, 0, data.k_tokens(t, t + 1), data.v_tokens(t, t + 1),
                                         q(64 + i, 65 + i), d.out);
    share +=
        static_cast<double>(done.traffic.wanted_bytes()) / ((t + 1) * 2.0 * 64 * sizeof(float));
  }
  return share / steps;
}

template <class Policy, class Layout = layout::token_indexed<>>
void check(double share, double tolerance = 0.05) {
  CAPTURE(share);
  const auto policy = methods::at_budget<Policy>(share, prompt + steps / 2, group);
  const double wanted = wanted_share<Policy, Layout>(policy, share);
  CHECK(wanted > share * (1 - tolerance));
  CHECK(wanted < share * (1 + tolerance));
}

}  // namespace

TEST_CASE("at_budget: wanted bytes are the share of dense's that was asked for") {
  for (const double share : {0.25, 0.0625}) {
    check<attention::streaming_llm>(share);
    check<attention::h2o>(share);
    check<attention::hgca>(share, 0.1);  // blocks
    check<attention::sparq, layout::dual<>>(share);
    check<attention::sparf, layout::dual<>>(share);
    check<attention::quest>(share, 0.12);  // the newest page is half full on average
    check<own_dsa>(share);
    check<own_misa>(share);
    check<attention::squeezed>(share);
    check<attention::retro_infer>(share, 0.15);  // clusters are of unlike sizes
  }
  check<attention::per_query_head<attention::quest>>(0.25);
  check<attention::top_values>(0.51);
  check<attention::top_values>(1.0);
  check<attention::dense>(1.0);
}

TEST_CASE("calibrate: two levels, and what it refuses") {
  attention::squeezed levels = methods::at_budget<attention::squeezed>(0.25, prompt);
  levels.coarse_clusters = 0.01;
  const double wanted = wanted_share(levels, 0.25);
  CHECK(wanted > 0.2);
  CHECK(wanted < 0.3);

  const random_cache<method_format> data(53, 200, group, 1);
  decoder<attention::squeezed, cpu::path> d({.threshold = 0.5, .window = 20}, group, 1);
  d.append(data.k, data.v);
  CHECK_THROWS_WITH_AS(methods::calibrate(d.engine, d.seq, data.q, 0.5),
                       "calibrate: layer 0 has no index; build() makes it", bad_argument);
  d.build();
  CHECK_THROWS_WITH_AS(methods::calibrate(d.engine, d.seq, data.q, 0.1),
                       "calibrate: the share must be at most 1 and above 0.100000, the share of "
                       "the tokens outside the index, got 0.100000",
                       bad_argument);
  CHECK_THROWS_WITH_AS(methods::calibrate(d.engine, d.seq, std::span(data.q).first(64), 0.5),
                       "calibrate: q must be [1, n, 2, 64], n > 0, got 64 values", bad_argument);
  CHECK(d.engine.attention().threshold == 0.5);
  methods::calibrate(d.engine, d.seq, data.q, 1.0);
  CHECK(d.engine.attention().threshold == 0.0);
}

TEST_CASE("at_budget: shares that a method cannot have") {
  CHECK_THROWS_WITH_AS(methods::at_budget<attention::dense>(0.5, 1024),
                       "at_budget: dense reads everything, its share is 1, got 0.500000",
                       bad_argument);
  CHECK_THROWS_WITH_AS(methods::at_budget<attention::top_values>(0.5, 1024),
                       "at_budget: top_values reads all of K, its share is above 1/2, got 0.500000",
                       bad_argument);
  for (const double share : {0.0, -0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
    CHECK_THROWS_AS(methods::at_budget<attention::quest>(share, 1024), bad_argument);
  }
  CHECK_THROWS_AS(methods::at_budget<attention::quest>(0.5, 0), bad_argument);
  CHECK_THROWS_AS(methods::at_budget<attention::quest>(0.5, 1024, 0), bad_argument);
  CHECK_THROWS_WITH_AS(methods::at_budget<attention::sparf>(0.5, 1024, 2, 0),
                       "at_budget: the share must lie in (0, 1], tokens, group and layers be "
                       "positive, got 0.500000, 1024, 2 and 0",
                       bad_argument);
}

}  // namespace instinfer::test_at_budget
