// What must hold of the methods by their definitions, shown on the transcriptions themselves: they
// are oracles for the policies, so they need proof of their own.

#include <random>

#include <doctest/doctest.h>

#include "instinfer/summaries/kmeans.hpp"
#include "tests/support/normals.hpp"
#include "tests/support/transcribed_clusters.hpp"
#include "tests/support/transcribed_hgca.hpp"
#include "tests/support/transcribed_index.hpp"
#include "tests/support/transcribed_quest.hpp"

namespace instinfer::test_transcriptions {

using namespace test;

namespace {

constexpr int dim = 16;

struct random_head {
  random_head(unsigned seed, int tokens, int group = 2) {
    std::mt19937 random(seed);
    normal_distribution normal;
    const auto fill = [&](Eigen::Index rows, double scale) {
      matrix m(rows, dim);
      for (Eigen::Index i = 0; i < m.size(); ++i) {  // floats, so that they can be clustered
        m.data()[i] = static_cast<double>(static_cast<float>(scale) * normal(random));
      }
      return m;
    };
    K = fill(tokens, 1.0);
    V = fill(tokens, 1.0);
    Q = fill(group, 2.0);
  }
  std::vector<float> keys(int first, int last) const {
    const matrix some = K.middleRows(first, last - first);
    return {some.data(), some.data() + some.size()};
  }
  matrix dense() const {
    return attention_over(Q, K, V, tokens_from_to(0, static_cast<int>(K.rows())));
  }
  matrix K, V, Q;
};

attention::clustering singletons(int n) {
  attention::clustering c{{}, std::vector<std::uint32_t>(static_cast<std::size_t>(n), 1)};
  for (int i = 0; i < n; ++i) {
    c.cluster_of.push_back(static_cast<std::uint32_t>(i));
  }
  return c;
}

double largest_difference(const matrix& a, const matrix& b) {
  return (a - b).cwiseAbs().maxCoeff();
}

}  // namespace

TEST_CASE("Quest: a box bounds its keys, is exact for one key, and all pages are dense") {
  const random_head x(1, 101);
  const row_vector one = quest_bounds(x.Q, x.K, 1);
  const row_vector sixteen = quest_bounds(x.Q, x.K, 16);
  for (int t = 0; t < 101; ++t) {
    const double most = (x.Q * x.K.row(t).transpose()).maxCoeff();
    CHECK(one[t] == doctest::Approx(most).epsilon(1e-12));
    CHECK(sixteen[t / 16] >= most - 1e-12);
  }
  CHECK(quest_tokens(sixteen, 101, 16, 7) == tokens_from_to(0, 101));
  const token_list three = quest_tokens(sixteen, 101, 16, 3);
  CHECK(three.size() == 2 * 16 + 5);  // two whole pages and the newest
  CHECK(three.back() == 100);
  CHECK(quest_tokens(sixteen, 101, 16, 1) == tokens_from_to(96, 101));
}

TEST_CASE(
    "RetroInfer: all clusters retrieved, or singletons estimated, is dense; estimates obey Jensen's bounds") {
  const random_head x(2, 200);
  const token_list steady = joined(tokens_from_to(0, 4), tokens_from_to(190, 200));
  const auto c = attention::segmented_kmeans{.clusters = 24, .segments = 2}(x.keys(4, 190), dim);
  const cluster_index index = index_of(x.K, x.V, c, 4);
  CHECK(static_cast<int>(index.sizes.sum()) + static_cast<int>(steady.size()) == 200);

  const auto all = transcribed_retro(x.Q, x.K, x.V, index, steady, 24, 0);
  CHECK(all.tokens == tokens_from_to(0, 200));
  CHECK(largest_difference(all.out, x.dense()) < 1e-12);
  const cluster_index alone = index_of(x.K, x.V, singletons(186), 4);
  CHECK(largest_difference(transcribed_retro(x.Q, x.K, x.V, alone, steady, 0, 186).out, x.dense()) <
        1e-12);
  const auto some = transcribed_retro(x.Q, x.K, x.V, index, steady, 3, 5);
  CHECK(some.retrieved.size() == 3);
  CHECK(some.estimated.size() == 5);
  CHECK(largest_difference(transcribed_retro(x.Q, x.K, x.V, index, steady, 3, 0).out,
                           attention_over(x.Q, x.K, x.V, some.tokens)) < 1e-12);

  for (Eigen::Index h = 0; h < x.Q.rows(); ++h) {
    for (int i = 0; i < index.clusters(); ++i) {
      double exact = 0;
      for (const int t : index.members[static_cast<std::size_t>(i)]) {
        exact += std::exp(x.Q.row(h).dot(x.K.row(t)) / 4);
      }
      const double estimate = index.sizes[i] * std::exp(x.Q.row(h).dot(index.centroids.row(i)) / 4);
      CHECK(exact >= estimate * (1 - 1e-12));
      CHECK(exact <= estimate * std::exp(x.Q.row(h).norm() * index.radii[i] / 4) * (1 + 1e-12));
    }
  }
}

TEST_CASE(
    "Squeezed: probabilities add up, are true ones for singletons, and thresholds keep what they say") {
  const random_head x(3, 300, 5);
  const auto c = attention::cosine_kmeans{.clusters = 40}(x.keys(0, 300), dim);
  const cluster_index index = index_of(x.K, x.V, c);
  const row_vector p = key_probability(x.Q, index);
  CHECK((p.array() * index.sizes.array()).sum() == doctest::Approx(1.0).epsilon(1e-12));
  CHECK(members_of(index, above(p, 0.0)) == tokens_from_to(0, 300));

  const cluster_index alone = index_of(x.K, x.V, singletons(300));
  const row_vector exact = test::defined_weights(x.Q.row(0), x.K);
  CHECK((key_probability(x.Q.topRows(1), alone) - exact).cwiseAbs().maxCoeff() < 1e-12);

  // A block of queries keeps 1 - z of the keys on which it was calibrated, up to one cluster of
  // ties.
  std::vector<double> pool;
  pool_key_probabilities(p, index, pool);
  REQUIRE(pool.size() == 300);
  for (const double z : {0.1, 0.5, 0.9}) {
    const auto kept = members_of(index, above(p, quantile(pool, z)));
    CHECK(std::abs(static_cast<double>(kept.size()) - 300 * (1 - z)) <= index.sizes.maxCoeff() + 1);
  }
  CHECK(quantile({4, 1, 3, 2}, 0.5) == 2.5);
  CHECK(quantile({4, 1, 3, 2}, 1.0) == 4.0);
}

TEST_CASE(
    "Squeezed: a coarse threshold of 0 gives the flat lookup, a higher one keeps children of passing parents") {
  const random_head x(4, 400, 1);
  const auto c = attention::cosine_kmeans{.clusters = 60}(x.keys(0, 400), dim);
  const cluster_index fine = index_of(x.K, x.V, c);
  const std::vector<float> centroids(fine.centroids.data(),
                                     fine.centroids.data() + fine.centroids.size());
  const auto parents = attention::cosine_kmeans{.clusters = 9}(centroids, dim);
  const cluster_index coarse = index_of(x.K, x.V, composed(c, parents));
  const row_vector of_fine = key_probability(x.Q, fine);
  const row_vector of_coarse = key_probability(x.Q, coarse);
  const double fine_threshold = 1.0 / 400;
  CHECK(transcribed_two_level(x.Q, coarse, fine, parents.cluster_of, 0.0, fine_threshold) ==
        above(of_fine, fine_threshold));
  std::vector<double> pool;
  pool_key_probabilities(of_coarse, coarse, pool);
  const double coarse_threshold = quantile(pool, 0.5);
  const auto kept = transcribed_two_level(x.Q, coarse, fine, parents.cluster_of, coarse_threshold,
                                          fine_threshold);
  CHECK(!kept.empty());
  for (const int i : kept) {
    CHECK(of_coarse[parents.cluster_of[static_cast<std::size_t>(i)]] > coarse_threshold);
  }
}

TEST_CASE(
    "HGCA: with beta 0 every step is dense; each token is in one store; averages have their closed form") {
  const random_head x(5, 300);
  for (const bool global : {false, true}) {
    transcribed_hgca all({.window = 64, .block = 16, .beta = 0, .global = global});
    transcribed_hgca few({.window = 64, .block = 16, .beta = 1.5, .global = global});
    const double alpha = hgca_settings{}.alpha;
    std::vector<double> closed;  // of token 50, over its time in the window
    for (int t = 0; t < 300; ++t) {
      const row_vector q = x.Q.row(t % 2);
      const auto found = all.step(q, x.K, x.V, t);
      CHECK(found.tokens == tokens_from_to(0, t + 1));
      CHECK(
          (found.out - test::defined_attention(q, x.K.topRows(t + 1), x.V.topRows(t + 1))).norm() <
          1e-12);
      CHECK(all.evicted() % 16 == 0);
      CHECK(static_cast<int>(all.context().size()) == all.evicted());
      CHECK(static_cast<int>(all.weights().size()) == t + 1 - all.evicted());
      CHECK(static_cast<int>(all.weights().size()) <= 64);

      const auto part = few.step(q, x.K, x.V, t);
      CHECK(part.tokens.size() == few.context().size() + few.weights().size());
      CHECK(static_cast<int>(few.context().size()) >= few.evicted() / 16 * 10);
      if (t >= 50 && all.evicted() <= 50) {
        const int first = global ? 0 : all.evicted();
        const row_vector p = test::defined_weights(q, x.K.middleRows(first, t + 1 - first));
        closed.push_back(p[50 - first]);
        const auto steps = static_cast<int>(closed.size());
        double sum = std::pow(1 - alpha, steps - 1) * closed[0];
        for (int s = 1; s < steps; ++s) {
          sum += alpha * std::pow(1 - alpha, steps - 1 - s) * closed[static_cast<std::size_t>(s)];
        }
        CHECK(all.weights()[static_cast<std::size_t>(50 - all.evicted())] ==
              doctest::Approx(sum).epsilon(1e-12));
      }
    }
    CHECK(few.context().size() < all.context().size());
  }
}

TEST_CASE("MISA: all heads, or all tokens as candidates, is DSA; block means are means") {
  std::mt19937 random(6);
  std::normal_distribution<double> normal;
  const matrix kI = matrix::NullaryExpr(150, dim, [&] { return normal(random); });
  const matrix qI = matrix::NullaryExpr(12, dim, [&] { return normal(random); });
  const row_vector w = row_vector::NullaryExpr(12, [&] { return normal(random); });
  const token_list wanted = dsa_tokens(qI, w, kI, 20);
  CHECK(wanted.size() == 20);
  CHECK(misa_tokens(qI, w, kI, 32, 12, 20) == wanted);
  CHECK(misa_tokens(qI, w, kI, 32, 3, 20, 150) == wanted);
  CHECK(dsa_tokens(qI, w, kI, 200) == tokens_from_to(0, 150));
  CHECK(misa_heads(qI, 5.0 * w, block_means(kI, 32), 4) ==
        misa_heads(qI, w, block_means(kI, 32), 4));
  const matrix means = block_means(kI, 32);
  REQUIRE(means.rows() == 5);
  CHECK((means.row(4) - kI.bottomRows(22).colwise().sum() / 22).norm() < 1e-12);
  row_vector few = w;  // only three heads count: three are enough
  for (int h = 0; h < 12; ++h) {
    few[h] = h == 2 || h == 5 || h == 11 ? w[h] : 0.0;
  }
  CHECK(misa_heads(qI, few, means, 3) == std::vector<int>{2, 5, 11});
  CHECK(recall(dsa_tokens(qI, few, kI, 20), misa_tokens(qI, few, kI, 32, 3, 20)) == 1.0);
  CHECK(recall({1, 2, 3, 4}, {2, 4, 5}) == 0.5);
}

}  // namespace instinfer::test_transcriptions
