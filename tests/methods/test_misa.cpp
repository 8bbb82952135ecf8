// MISA: few heads chosen by the means of blocks, then DSA's scores by these.

#include "tests/support/indexed.hpp"
#include "tests/support/transcribed_index.hpp"

namespace instinfer::test_misa {

using namespace test;
using attention::head_router;

TEST_CASE("MISA by the keys themselves: all kept is dense attention, and so is what is kept") {
  test::check_method<own_misa>({.keep_tokens = 1.0}, {.keep_tokens = budget::at_most(20),
                                                      .active_heads = budget::at_most(2),
                                                      .candidates = budget::at_most(60)});
}

TEST_CASE("block means are those of the keys, also of the last block, however tokens came") {
  const workload::index_sample s = workload::index_topics{.tokens = 700, .queries = 1}();
  indexed<misa> all(s, misa{});
  const auto& keys = all.d.summary<misa::index>();
  const matrix expected = test::block_means(matrix_of(s.keys, 128), 128);
  const auto check = [&](const auto& index) {
    REQUIRE(index.blocks() == 6);
    std::vector<double> mean(128);
    for (std::uint32_t b = 0; b < 6; ++b) {
      index.mean(b, mean);
      for (int i = 0; i < 128; ++i) {
        CHECK(mean[static_cast<std::size_t>(i)] == doctest::Approx(expected(b, i)).epsilon(1e-6));
      }
    }
  };
  check(keys);
  decoder<misa, cpu::path> pieces(misa{});
  const test::random_cache<method_format> data(7, 700, 1, 1);
  for (int first = 0, n = 1; first < 700; first += n, n = std::min(2 * n + 1, 700 - first)) {
    pieces.append(
        data.k_tokens(first, first + n), data.v_tokens(first, first + n),
        rows_of(s.keys, static_cast<std::size_t>(first), static_cast<std::size_t>(n), 128));
  }
  check(pieces.summary<misa::index>());
  CHECK(std::ranges::equal(pieces.summary<misa::index>().keys(), keys.keys()));
}

TEST_CASE(
    "MISA's router: the largest means of |w relu(q k)|, whatever the scale and order of heads") {
  const workload::index_sample s = workload::index_topics{.tokens = 700, .queries = 3}();
  indexed<misa> all(s, misa{});
  const auto& keys = all.d.summary<misa::index>();
  const matrix means = test::block_means(matrix_of(s.keys, 128), 128);
  for (std::size_t i = 0; i < 3; ++i) {
    const index_query q = all.query(i);
    const row_vector w = matrix_of(q.weights, 64).row(0);
    const auto heads_of = [&](const index_query& of, head_router router, std::uint32_t rows) {
      index_set heads;
      CHECK(keys.top_heads(of, router, 8, heads) == rows);
      token_list list;
      heads.view().for_each([&](std::uint32_t h) { list.push_back(static_cast<int>(h)); });
      return list;
    };
    const token_list heads = heads_of(q, head_router::block_means, 6);
    CHECK(heads == test::misa_heads(matrix_of(q.queries, 128), w, means, 8));
    std::vector<float> scaled(q.weights.begin(), q.weights.end());
    for (float& x : scaled) {
      x *= 4;
    }
    CHECK(heads_of({q.queries, scaled}, head_router::block_means, 6) == heads);
    std::vector<float> turned_q;  // head 63 first
    std::vector<float> turned_w;
    for (std::size_t h = 64; h-- > 0;) {
      std::ranges::copy(q.queries.subspan(h * 128, 128), std::back_inserter(turned_q));
      turned_w.push_back(q.weights[h]);
    }
    token_list turned = heads_of({turned_q, turned_w}, head_router::block_means, 6);
    std::ranges::transform(turned, turned.begin(), [](int h) { return 63 - h; });
    std::ranges::sort(turned);
    CHECK(turned == heads);
    // The other routers.
    row_vector norms(64);
    row_vector newest(64);
    for (int h = 0; h < 64; ++h) {
      const row_vector query = matrix_of(q.queries, 128).row(h);
      norms[h] = std::abs(w[h]) * query.norm();
      newest[h] = std::abs(w[h]) * std::max(0.0, query.dot(matrix_of(s.keys, 128).row(699)));
    }
    CHECK(heads_of(q, head_router::query_norm, 0) == test::largest(norms, 8));
    const token_list by_newest = heads_of(q, head_router::newest_key, 1);
    CHECK(test::recall(test::largest(newest, 8), by_newest) >= 0.75);  // the key is coded in fp8
  }
}

TEST_CASE(
    "MISA on the synthetic index: few heads find most of DSA's tokens, with a second look nearly all") {
  const workload::index_sample s = workload::index_topics{.queries = 6}();
  const budget k = budget::exactly(1024);
  indexed<dsa> full(s, dsa{.keep_tokens = k});
  std::vector<token_list> wanted;
  for (std::size_t i = 0; i < 6; ++i) {
    wanted.push_back(full.tokens(i));
  }
  const auto recall_of = [&](int heads, int candidates, double* all) {
    indexed<misa> some(s, misa{.keep_tokens = k,
                               .active_heads = budget::exactly(heads),
                               .candidates = budget::at_most(candidates)});
    double mean = 0;
    for (std::size_t i = 0; i < 6; ++i) {
      all[i] = test::recall(wanted[i], some.tokens(i));
      mean += all[i] / 6;
    }
    // Products: heads with block means, few heads with all keys, all heads with the candidates.
    CHECK(some.d.seen.heads[0].products == 64u * 64 + static_cast<unsigned>(heads) * 8192u +
                                               64u * static_cast<unsigned>(candidates));
    CHECK(some.d.traffic.summary_bytes ==
          64u * 128 * 4 + 132u * (8192 + static_cast<unsigned>(candidates)));
    CHECK(some.d.traffic.filtered_bytes == 2 * 1024 * test::row_bytes);
    return mean;
  };
  double before = 0;
  double before_twice = 0;
  for (const int heads : {4, 8, 16, 64}) {
    std::array<double, 6> plain{};
    std::array<double, 6> twice{};
    const double mean = recall_of(heads, 0, plain.data());
    const double mean_twice = recall_of(heads, 4096, twice.data());
    MESSAGE(heads, " heads: recall ", mean, ", with candidates ", mean_twice);
    for (std::size_t i = 0; i < 6; ++i) {
      CHECK(twice[i] >= plain[i]);
    }
    CHECK(mean >= before - 0.01);
    CHECK(mean_twice >= before_twice - 0.01);
    CHECK((heads != 8 || mean_twice > 0.95));
    CHECK((heads != 64 || mean > 1 - 1e-12));
    before = mean;
    before_twice = mean_twice;
  }
  // As many candidates as tokens: DSA, whatever the router thinks.
  indexed<misa> second(
      s, misa{.keep_tokens = k, .active_heads = budget::exactly(1), .candidates = 1.0});
  CHECK(second.tokens(0) == wanted[0]);
}

TEST_CASE("MISA finds all where only the active heads have a weight") {
  workload::index_sample s = workload::index_topics{.tokens = 1000, .queries = 1}();
  for (std::size_t h = 0; h < 64; ++h) {
    s.weights[h] = h % 11 == 0 ? std::abs(s.weights[h]) : 0.0f;  // 6 of them
  }
  indexed<dsa> full(s, dsa{.keep_tokens = 0.1});
  indexed<misa> some(s, misa{.keep_tokens = 0.1, .active_heads = budget::exactly(6)});
  CHECK(some.tokens(0) == full.tokens(0));
  CHECK(some.d.out == full.d.out);
}

}  // namespace instinfer::test_misa
