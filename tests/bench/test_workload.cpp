#include "support/workload.hpp"

#include <bit>
#include <map>
#include <vector>

#include <doctest/doctest.h>

#include "instinfer/summaries/kmeans.hpp"
#include "tests/support/shared_timelines.hpp"
#include "tests/support/transcribed_clusters.hpp"
#include "tests/support/transcribed_hgca.hpp"
#include "tests/support/transcribed_index.hpp"
#include "tests/support/transcribed_quest.hpp"

namespace instinfer::test_workload {

using namespace test;

namespace {

matrix rows_of(const std::vector<float>& x, int dim) {
  matrix m(static_cast<Eigen::Index>(x.size()) / dim, dim);
  std::ranges::copy(x, m.data());
  return m;
}

struct fp64_sample {
  explicit fp64_sample(const workload::sample& s)
      : K{rows_of(s.k, s.dim)}, V{rows_of(s.v, s.dim)}, Q{rows_of(s.q, s.dim)} {}
  matrix K, V, Q;
};

// Over the queries of a sample.
struct quality {
  double error = 0;  // mean of |out - exact| / |exact|
  double mass = 0;   // mean share of the softmax that is attended exactly
  double mass_min = 1;
  double kept = 0;  // mean share of the tokens
};

// answer(q [1, dim]) -> {tokens, out [1, v_dim]}
template <class Answer>
quality measure(const fp64_sample& x, Answer&& answer) {
  quality sum;
  const auto n = static_cast<double>(x.Q.rows());
  for (Eigen::Index i = 0; i < x.Q.rows(); ++i) {
    const auto [tokens, out] = answer(matrix(x.Q.row(i)));
    const row_vector weights = test::defined_weights(x.Q.row(i), x.K);
    const row_vector exact = weights * x.V;
    const double mass = mass_of(weights, tokens);
    sum.error += (out.row(0) - exact).norm() / exact.norm() / n;
    sum.mass += mass / n;
    sum.mass_min = std::min(sum.mass_min, mass);
    sum.kept += static_cast<double>(tokens.size()) / static_cast<double>(x.K.rows()) / n;
  }
  return sum;
}

struct answer_of {
  token_list tokens;
  matrix out;
};

quality measure_tokens(const fp64_sample& x, auto&& choose) {
  return measure(x, [&](const matrix& q) {
    const token_list tokens = choose(q);
    return answer_of{tokens, attention_over(q, x.K, x.V, tokens)};
  });
}

std::uint64_t fingerprint(std::span<const float> x) {  // FNV-1a
  std::uint64_t hash = 0xCBF2'9CE4'8422'2325u;
  for (const float value : x) {
    hash = (hash ^ std::bit_cast<std::uint32_t>(value)) * 0x100'0000'01B3u;
  }
  return hash;
}

// RetroInfer as the reference values have it: 512 clusters, 4 sinks, 64 newest tokens, 9 clusters
// retrieved.
struct retro_index {
  retro_index(const workload::sample& s, const attention::segmented_kmeans& how) : x{s} {
    const int tokens = s.tokens();
    const auto body =
        std::span(s.k).subspan(static_cast<std::size_t>(sinks * s.dim),
                               static_cast<std::size_t>((tokens - sinks - newest) * s.dim));
    index = index_of(x.K, x.V, how(body, s.dim), sinks);
    steady = joined(tokens_from_to(0, sinks), tokens_from_to(tokens - newest, tokens));
  }
  quality at(int retrieved, int estimated) const {
    return measure(x, [&](const matrix& q) {
      const auto r = transcribed_retro(q, x.K, x.V, index, steady, retrieved, estimated);
      return answer_of{r.tokens, r.out};
    });
  }

  static constexpr int sinks = 4;
  static constexpr int newest = 64;
  fp64_sample x;
  cluster_index index;
  token_list steady;
};

}  // namespace

TEST_CASE("a seed gives the same bits with every compiler, another seed others") {
  const auto s = workload::topics{}();
  CHECK(s.tokens() == 8192);
  CHECK(s.queries() == 32);
  CHECK(s.k.size() == 8192 * 64);
  CHECK(s.v.size() == 8192 * 64);
  CHECK(s.q.size() == 32 * 64);
  CHECK(fingerprint(s.k) == 1000298515044178050u);
  CHECK(fingerprint(s.v) == 9170995793306853118u);
  CHECK(fingerprint(s.q) == 14143295338323363304u);
  CHECK(fingerprint(workload::topics{.seed = 6}().k) != fingerprint(s.k));
  const auto index = workload::index_topics{}();
  CHECK(index.keys.size() == 8192 * 128);
  CHECK(index.q.size() == 12 * 64 * 128);
  CHECK(index.weights.size() == 12 * 64);
  CHECK(fingerprint(index.keys) == 17220685872671562911u);
  CHECK(fingerprint(index.weights) == 7889797723306893853u);
}

TEST_CASE("tokens come in runs of mean length 24, and keys are what the definition says") {
  double runs = 0;
  double tokens = 0;
  double square = 0;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    const auto s = workload::topics{.seed = seed}();
    for (std::size_t t = 0; t < s.token_topic.size(); ++t) {
      runs += t == 0 || s.token_topic[t] != s.token_topic[t - 1] ? 1 : 0;
    }
    tokens += s.tokens();
    for (const float x : s.k) {
      square += static_cast<double>(x) * static_cast<double>(x);
    }
  }
  // A run that follows one of its own topic merges with it, 1 in 64. About 2700 runs: standard
  // error 1.9 %, three of them.
  CHECK(tokens / runs == doctest::Approx(24.0 * 64 / 63).epsilon(0.06));
  // |k|^2 = 6^2 + 64 * 0.5^2 in the mean.
  CHECK(square / tokens == doctest::Approx(36 + 16).epsilon(0.01));

  const auto plain = workload::topics{}();
  const auto moved = workload::topics{.offset = 3}();
  CHECK(moved.q == plain.q);
  CHECK(moved.v == plain.v);
  for (std::size_t i = 0; i < 64; ++i) {
    const float offset = moved.k[i] - plain.k[i];
    for (std::size_t at = i; at < plain.k.size(); at += 64 * 97) {
      CHECK(std::abs(moved.k[at] - plain.k[at] - offset) < 1e-5f);
    }
  }
}

TEST_CASE("the best tenth of the tokens holds 98.6 % of the mass, 93.9 % for the worst query") {
  double mass = 0;
  std::vector<double> worst;
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    const fp64_sample x(workload::topics{.seed = seed}());
    const quality best = measure_tokens(
        x, [&](const matrix& q) { return largest(test::defined_weights(q.row(0), x.K), 819); });
    CHECK(best.mass > 0.97);
    mass += best.mass / 8;
    worst.push_back(best.mass_min);
  }
  CHECK(mass == doctest::Approx(0.986).epsilon(0.005));
  std::ranges::sort(worst);
  CHECK((worst[3] + worst[4]) / 2 == doctest::Approx(0.939).epsilon(0.02));  // the median seed
}

TEST_CASE("the shuffled twin has the same rows, and the same exact answers") {
  const auto s = workload::topics{.tokens = 1000}();
  const auto mixed = workload::shuffled(s);
  CHECK(mixed.k != s.k);
  CHECK(mixed.q == s.q);
  std::map<std::vector<float>, std::uint32_t> topic_of;  // keyed by k and v side by side
  const auto whole = [](const workload::sample& x, std::size_t t) {
    std::vector<float> both(x.k.begin() + static_cast<std::ptrdiff_t>(64 * t),
                            x.k.begin() + static_cast<std::ptrdiff_t>(64 * (t + 1)));
    both.insert(both.end(), x.v.begin() + static_cast<std::ptrdiff_t>(64 * t),
                x.v.begin() + static_cast<std::ptrdiff_t>(64 * (t + 1)));
    return both;
  };
  for (std::size_t t = 0; t < 1000; ++t) {
    topic_of[whole(s, t)] = s.token_topic[t];
  }
  CHECK(topic_of.size() == 1000);
  for (std::size_t t = 0; t < 1000; ++t) {
    const auto at = topic_of.find(whole(mixed, t));
    REQUIRE(at != topic_of.end());
    CHECK(at->second == mixed.token_topic[t]);
    topic_of.erase(at);
  }
  const fp64_sample a(s);
  const fp64_sample b(mixed);
  const row_vector q = a.Q.row(0);
  CHECK((test::defined_attention(q, a.K, a.V) - test::defined_attention(q, b.K, b.V)).norm() <
        1e-12);
}

TEST_CASE("RetroInfer's reference values: zones, segments, centring, shuffled tokens") {
  const auto s = workload::topics{}();
  const retro_index one(s, {.clusters = 512});
  const quality none = one.at(9, 0);
  CHECK(none.mass > 0.93);  // 0.967
  CHECK(none.kept == doctest::Approx(0.027).epsilon(0.25));
  CHECK(none.error == doctest::Approx(3.1e-2).epsilon(0.35));
  const quality some = one.at(9, 119);
  CHECK(some.error < 0.7 * none.error);
  CHECK(some.error == doctest::Approx(1.5e-2).epsilon(0.35));
  CHECK(some.mass == none.mass);
  const quality rest = one.at(9, 503);
  CHECK(rest.error < 0.4 * none.error);
  CHECK(rest.error == doctest::Approx(7.2e-3).epsilon(0.35));

  const retro_index four(s, {.clusters = 512, .segments = 4});
  CHECK(four.at(9, 0).error < 1.5 * none.error);
  CHECK(four.at(9, 119).error < 1.5 * some.error);
  CHECK(four.at(9, 503).error < 1.5 * rest.error);

  const auto moved = workload::topics{.offset = 3}();
  const quality centred = retro_index(moved, {.clusters = 512}).at(9, 0);
  CHECK(centred.mass == doctest::Approx(none.mass).epsilon(1e-3));
  CHECK(centred.error == doctest::Approx(none.error).epsilon(1e-2));
  const quality raw = retro_index(moved, {.clusters = 512, .centred = false}).at(9, 0);
  CHECK(raw.mass == doctest::Approx(0.881).epsilon(0.05));
  CHECK(raw.mass_min < 0.5 * none.mass_min);  // 0.297
  CHECK(raw.error > 1.2 * none.error);        // 4.2e-2

  const retro_index mixed(workload::shuffled(s), {.clusters = 512});
  CHECK(mixed.at(9, 0).mass == doctest::Approx(0.948).epsilon(0.02));
  CHECK(mixed.at(9, 119).error == doctest::Approx(1.5e-2).epsilon(0.35));
}

TEST_CASE("Squeezed Attention's reference values, also with the tokens shuffled") {
  const auto plain = workload::topics{}();
  for (const auto& s : {plain, workload::shuffled(plain)}) {
    const fp64_sample x(s);
    const cluster_index index =
        index_of(x.K, x.V, attention::cosine_kmeans{.clusters = 410}(s.k, s.dim));
    std::vector<double> pool;
    for (Eigen::Index i = 0; i < x.Q.rows(); ++i) {
      pool_key_probabilities(key_probability(x.Q.row(i), index), index, pool);
    }
    struct expectation {
      double z, error, mass;
    };
    for (const expectation& want : {expectation{0.5, 0.2e-2, 0.998},
                                    {0.8, 0.8e-2, 0.992},
                                    {0.9, 1.35e-2, 0.987},
                                    {0.97, 2.5e-2, 0.977}}) {
      CAPTURE(want.z);
      const double threshold = quantile(pool, want.z);
      const quality found = measure_tokens(x, [&](const matrix& q) {
        return members_of(index, above(key_probability(q, index), threshold));
      });
      // Within ties: whole clusters.
      CHECK(found.kept == doctest::Approx(1 - want.z).epsilon(0.02));
      CHECK(std::abs(found.mass - want.mass) < 0.007);
      CHECK(found.error == doctest::Approx(want.error).epsilon(0.4));
    }
  }
}

TEST_CASE("Quest's reference values: neighbours help, shuffled tokens do not") {
  const auto plain = workload::topics{}();
  struct expectation {
    int pages;
    double mass, shuffled_mass, shuffled_error;
  };
  const fp64_sample x(plain);
  const fp64_sample mixed(workload::shuffled(plain));
  for (const expectation& want :
       {expectation{64, 0.976, 0.48, 0.11}, {32, 0.970, 0.30, 0.17}, {16, 0.933, 0.19, 0.23}}) {
    CAPTURE(want.pages);
    const auto with = [&](const fp64_sample& of) {
      return measure_tokens(of, [&](const matrix& q) {
        return quest_tokens(quest_bounds(q, of.K, 16), 8192, 16, want.pages);
      });
    };
    CHECK(std::abs(with(x).mass - want.mass) < 0.02);
    CHECK(std::abs(with(mixed).mass - want.shuffled_mass) < 0.06);
    CHECK(with(mixed).error == doctest::Approx(want.shuffled_error).epsilon(0.15));
  }
  for (Eigen::Index i = 0; i < x.Q.rows(); ++i) {
    const row_vector bounds = quest_bounds(x.Q.row(i), x.K, 16);
    const row_vector products = x.Q.row(i) * x.K.transpose();
    for (Eigen::Index t = 0; t < products.size(); ++t) {
      REQUIRE(products[t] <= bounds[t / 16] * (1 + 1e-14) + 1e-12);
    }
  }
}

TEST_CASE("HGCA's reference values: past weights serve persistent hitters, not returning topics") {
  struct stream_quality {
    double error = 0, worst_error = 0, mass = 0, mass_min = 1, kept = 0;
  };
  const auto replay = [](const workload::sample& s, const hgca_settings& how) {
    const fp64_sample x(s);
    transcribed_hgca hgca(how);
    stream_quality sum;
    int count = 0;
    for (int t = 0; t < s.tokens(); ++t) {
      const auto found = hgca.step(x.Q.row(t), x.K, x.V, t);
      if (t < how.window || t % 16 != 0) {
        continue;
      }
      const row_vector weights = test::defined_weights(x.Q.row(t), x.K.topRows(t + 1));
      const row_vector exact = weights * x.V.topRows(t + 1);
      const double error = (found.out - exact).norm() / exact.norm();
      sum.error += error;
      sum.worst_error = std::max(sum.worst_error, error);
      sum.mass += mass_of(weights, found.tokens);
      sum.mass_min = std::min(sum.mass_min, mass_of(weights, found.tokens));
      ++count;
    }
    sum.error /= count;
    sum.mass /= count;
    sum.kept = static_cast<double>(hgca.context().size()) / hgca.evicted();
    CHECK(hgca.evicted() % how.block == 0);
    return sum;
  };
  const auto hitters = workload::hitter_stream{}();
  CHECK(replay(hitters, {.beta = 0}).worst_error < 1e-12);
  for (const double beta : {0.5, 2.0}) {
    const auto found = replay(hitters, {.beta = beta});
    CHECK(found.kept == doctest::Approx(10.0 / 64).epsilon(0.01));
    CHECK(std::abs(found.mass - 0.990) < 0.01);
    CHECK(found.mass_min > 0.8);  // 0.91
    CHECK(found.error < 1.5 * 0.85e-2);
  }
  const auto local = replay(hitters, {.beta = 0.5});
  const auto global = replay(hitters, {.beta = 0.5, .global = true});
  CHECK(global.mass == doctest::Approx(local.mass).epsilon(0.01));

  const auto switching = replay(workload::switching_stream{}(), {.beta = 0.5});
  CHECK(switching.kept == doctest::Approx(0.21).epsilon(0.3));
  CHECK(switching.mass == doctest::Approx(0.44).epsilon(0.2));
  CHECK(switching.error == doctest::Approx(0.15).epsilon(0.3));
}

TEST_CASE("MISA's reference values: recall of DSA's tokens by heads, plain and hierarchical") {
  const auto s = workload::index_topics{}();
  const matrix keys = rows_of(s.keys, s.dim);
  const matrix queries = rows_of(s.q, s.dim);
  struct recalls {
    double plain = 0, ranked_again = 0;
  };
  std::vector<token_list> wanted;
  const auto query = [&](int i) { return matrix(queries.middleRows(i * s.heads, s.heads)); };
  const auto weights = [&](int i) {
    row_vector w(s.heads);
    std::copy_n(s.weights.begin() + i * s.heads, s.heads, w.begin());
    return w;
  };
  for (int i = 0; i < 12; ++i) {
    wanted.push_back(dsa_tokens(query(i), weights(i), keys, 1024));
  }
  const auto with = [&](int block, int heads) {
    recalls sum;
    for (int i = 0; i < 12; ++i) {
      const token_list& all = wanted[static_cast<std::size_t>(i)];
      const double plain = recall(all, misa_tokens(query(i), weights(i), keys, block, heads, 1024));
      const double again =
          recall(all, misa_tokens(query(i), weights(i), keys, block, heads, 1024, 4096));
      CHECK(again >= plain);
      sum.plain += plain / 12;
      sum.ranked_again += again / 12;
    }
    return sum;
  };
  recalls before;
  struct expectation {
    int heads;
    double plain, ranked_again;
  };
  for (const expectation& want :
       {expectation{4, 0.67, 0.956}, {8, 0.78, 0.992}, {16, 0.87, 1.0}, {32, 0.95, 1.0}}) {
    CAPTURE(want.heads);
    const recalls found = with(128, want.heads);
    CHECK(std::abs(found.plain - want.plain) < 0.08);
    CHECK(std::abs(found.ranked_again - want.ranked_again) < 0.03);
    CHECK(found.plain > before.plain - 0.01);
    CHECK(found.ranked_again > before.ranked_again - 0.01);
    before = found;
  }
  CHECK(with(128, 8).ranked_again > 0.95);
  const recalls all = with(1024, 64);
  CHECK(all.plain == 1.0);
  CHECK(all.ranked_again == 1.0);
  CHECK(std::abs(with(1024, 8).plain - 0.66) < 0.12);
}

}  // namespace instinfer::test_workload
