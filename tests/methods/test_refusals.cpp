// Settings that cannot be, and calls that a method cannot serve, are refused by name; the state
// stays as it was.

#include "instinfer/layout/dual.hpp"
#include "instinfer/methods/h2o.hpp"
#include "instinfer/methods/hgca.hpp"
#include "instinfer/methods/quest.hpp"
#include "instinfer/methods/retro_infer.hpp"
#include "instinfer/methods/sparq.hpp"
#include "instinfer/methods/squeezed.hpp"
#include "instinfer/methods/streaming_llm.hpp"
#include "instinfer/methods/top_values.hpp"
#include "tests/support/indexed.hpp"

namespace instinfer::test_refusals {

using namespace test;
using attention::h2o;
using attention::hgca;
using attention::quest;
using attention::retro_infer;
using attention::sparq;
using attention::squeezed;
using attention::streaming_llm;
using attention::top_values;

namespace {

constexpr quest quest_of(budget keep) { return {.keep_pages = keep, .dense_layers = 0}; }

template <class Policy>
Policy h2o_or_hgca_few();

template <>
h2o h2o_or_hgca_few() {
  return {.heavy = 8, .recent = 8};
}

template <>
hgca h2o_or_hgca_few() {
  return {.window = 32, .block = 16};
}

// What a policy that learns from weights refuses, and that nothing was learned then.
template <class Policy>
void check_refusals() {
  using on_cpu = decoder<Policy, cpu::path>;
  const Policy policy = h2o_or_hgca_few<Policy>();
  CHECK(test::says(test::refusal_of([&] { on_cpu(policy, 1, 1, {.window = 64}); }),
                   "keeps a window of its own, logit_rule.window must be 0"));
  const std::vector<float> slope{0.5f};
  CHECK(test::says(test::refusal_of([&] { on_cpu(policy, 1, 1, {.slopes = slope}); }),
                   "must have no slopes and no distance_bias"));
  const workload::sample s = workload::hitter_stream{.tokens = 48}();
  on_cpu d(policy);
  on_cpu twin(policy);
  for (int t = 0; t < 47; ++t) {
    decode_token(d, s, t);
    decode_token(twin, s, t);
  }
  std::vector<float> two(128, -1.0f);
  CHECK(test::says(test::refusal_of([&] {
                     d.engine.attend(d.seq, 0, rows_of(s.q, 45, 2), two, d.work, parallel::serial{},
                                     d.seen);
                   }),
                   "one query a call, got 2"));
  CHECK(two == std::vector<float>(128, -1.0f));
  std::vector<float> bad(64, std::nanf(""));
  CHECK(test::says(test::refusal_of([&] { d.attend(bad); }), "q must be finite"));
  decode_token(d, s, 47);
  decode_token(twin, s, 47);
  CHECK(d.out == twin.out);
}

}  // namespace

TEST_CASE(
    "policies that learn from weights refuse what they cannot do, and learn nothing from it") {
  check_refusals<h2o>();
  check_refusals<hgca>();
  using streaming = decoder<streaming_llm, cpu::path>;
  CHECK(test::says(test::refusal_of([&] { streaming({}, 1, 1, {.window = 64}); }),
                   "keeps a window of its own"));
}

TEST_CASE("settings that cannot be are refused by name") {
  const auto refusal = []<class P>(const P& policy) {
    const workload::sample s = workload::topics{.tokens = 64, .queries = 1}();
    decoder<P, cpu::path> d(policy);
    d.append(s.k, s.v);
    d.out.assign(64, -1.0f);
    const std::string message = test::refusal_of([&] { d.attend(s.q); });
    CHECK(d.out == std::vector<float>(64, -1.0f));
    return message;
  };
  const double nan = std::nan("");
  CHECK(test::says(refusal(top_values{.keep_values = 0.0}),
                   "keep_values: must keep something, got 0"));
  CHECK(test::says(refusal(top_values{.keep_values = 1.5}),
                   "keep_values: a share must lie in [0, 1], got 1.5"));
  CHECK(test::says(refusal(top_values{.keep_values = nan}),
                   "keep_values: a share must lie in [0, 1]"));
  CHECK(test::says(refusal(top_values{.keep_values = budget::exactly(65)}),
                   "exactly 65 were asked for, but there are only 64"));
  CHECK(test::says(refusal(streaming_llm{.window = 0.0}), "window: must keep something"));
  CHECK(test::says(refusal(streaming_llm{.window = -0.5}), "window: a share must lie in [0, 1]"));
  CHECK(test::says(refusal(streaming_llm{.window = budget::at_most(-1)}),
                   "window: a count must not be negative, got -1"));
  CHECK(test::says(refusal(h2o{.heavy = 0, .recent = 0}), "heavy or recent must be positive"));
  CHECK(test::says(refusal(hgca{.window = 0}), "window and block must be positive, got 0 and 64"));
  CHECK(test::says(refusal(hgca{.block = 0}), "window and block must be positive"));
  CHECK(test::says(refusal(hgca{.salience = {.alpha = nan}}), "alpha must lie in (0, 1]"));
  CHECK(test::says(refusal(hgca{.salience = {.alpha = 1.5}}), "alpha must lie in (0, 1]"));
  CHECK(test::says(refusal(hgca{.salience = {.beta = -1}}), "beta be finite and >= 0"));
}

TEST_CASE("settings that cannot be are refused by name") {
  const test::random_cache<method_format> data(132, 200, 1, 1);
  const auto refusal = [&]<class P>(const P& policy) {
    decoder<P, cpu::path> d(policy);
    d.append(data.k, data.v);
    d.out.assign(64, -1.0f);
    const std::string message = test::refusal_of([&] { d.attend(data.q); });
    CHECK(d.out == std::vector<float>(64, -1.0f));
    return message;
  };
  const double nan = std::nan("");
  CHECK(test::says(refusal(quest_of(0.0)), "keep_pages: must keep something, got 0"));
  CHECK(test::says(refusal(quest_of(nan)), "keep_pages: a share must lie in [0, 1]"));
  CHECK(test::says(refusal(quest_of(2.0)), "keep_pages: a share must lie in [0, 1], got 2"));
  CHECK(test::says(refusal(own_dsa{.keep_tokens = 0.0}), "keep_tokens: must keep something"));
  CHECK(
      test::says(refusal(own_dsa{.keep_tokens = nan}), "keep_tokens: a share must lie in [0, 1]"));
  CHECK(test::says(refusal(own_misa{.keep_tokens = 0.0}), "keep_tokens: must keep something"));
  CHECK(test::says(refusal(own_misa{.active_heads = 0.0}), "active_heads: must keep something"));
  CHECK(test::says(refusal(own_misa{.active_heads = budget::exactly(2)}),
                   "active_heads: exactly 2 were asked for, but there are only 1"));
  CHECK(
      test::says(refusal(own_misa{.candidates = -0.5}), "candidates: a share must lie in [0, 1]"));
  CHECK(test::says(refusal(sparq{.keep_dims = 1.5}), "keep_dims: a share must lie in [0, 1]"));
  CHECK(test::says(refusal(sparq{.keep_tokens = nan}), "keep_tokens: a share must lie in [0, 1]"));
}

TEST_CASE("what cannot be clustered is refused, and the cache is as before") {
  const test::random_cache<method_format> data(93, 300, 1, 1);
  const auto refusal = [&]<class P>(const P& policy, int tokens = 300) {
    decoder<P, cpu::path> d(policy);
    d.append(rows_of(data.k, 0, static_cast<std::size_t>(tokens)),
             rows_of(data.v, 0, static_cast<std::size_t>(tokens)));
    const std::string message = test::refusal_of([&] { d.build(); });
    CHECK(d.template summary<attention::cluster_index>().chunks() == 0);
    d.engine.reclaim(d.seq,
                     {.tokens_before = static_cast<std::uint32_t>(tokens)});  // nothing needs them
    return message;
  };
  CHECK(test::says(refusal(squeezed{.clusters = budget::exactly(201)}),
                   "clusters: exactly 201 were asked for, but there are only 200"));
  CHECK(test::says(refusal(squeezed{.clusters = 0.0}), "200 rows make 1 to 200 clusters, got 0"));
  CHECK(test::says(refusal(squeezed{.clusters = std::nan("")}), "clusters: a share must lie in"));
  CHECK(test::says(refusal(squeezed{.clusters = 0.1, .coarse_clusters = 0.2}),
                   "20 rows make 1 to 20 clusters, got 40"));
  CHECK(test::says(refusal(retro_infer{.window = 16, .cluster_tokens = 0, .update_tokens = 64}),
                   "must have at least one row"));
  CHECK(test::says(refusal(squeezed{}, 0), "no tokens"));
  CHECK(test::says(refusal(retro_infer{}, 0), "no tokens"));
  CHECK(refusal(squeezed{}, 100) == "no error");  // all of it is window: nothing to do
  CHECK(refusal(retro_infer{}) == "no error");    // too short to be worth an index
}

TEST_CASE("settings that cannot be are refused by name") {
  const test::random_cache<method_format> data(95, 300, 1, 1);
  const auto refusal = [&]<class P>(const P& policy) {
    decoder<P, cpu::path> d(policy);
    d.append(data.k, data.v);
    d.build();
    d.out.assign(64, -1.0f);
    const std::string message = test::refusal_of([&] { d.attend(data.q); });
    CHECK(d.out == std::vector<float>(64, -1.0f));
    return message;
  };
  const double nan = std::nan("");
  CHECK(test::says(refusal(squeezed{.threshold = nan}),
                   "a threshold is a probability in [0, 1), got"));
  CHECK(test::says(refusal(squeezed{.threshold = 1.0}), "a threshold is a probability in [0, 1)"));
  CHECK(test::says(refusal(squeezed{.threshold = -0.1}), "a threshold is a probability in [0, 1)"));
  const retro_infer small{.window = 16, .update_tokens = 64};
  for (const double bad : {nan, 1.1, -0.1}) {
    retro_infer policy = small;
    policy.retrieved = bad;
    CHECK(test::says(refusal(policy), "retrieved: a share must lie in [0, 1]"));
    policy = small;
    policy.estimated = bad;
    CHECK(test::says(refusal(policy), "estimated: a share must lie in [0, 1]"));
    policy = small;
    policy.cached = bad;
    CHECK(test::says(refusal(policy), "cached: a share must lie in [0, 1]"));
  }
  using on_cpu = decoder<retro_infer, cpu::path>;
  CHECK(test::says(test::refusal_of([&] { on_cpu(small, 1, 1, {.window = 64}); }),
                   "keeps a window of its own"));
}

}  // namespace instinfer::test_refusals
