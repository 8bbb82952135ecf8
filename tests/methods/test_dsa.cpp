// DSA: tokens by the scores of an index, on the reference and the CPU path.

#include "instinfer/methods/quest.hpp"
#include "tests/support/indexed.hpp"
#include "tests/support/normals.hpp"
#include "tests/support/transcribed_index.hpp"

namespace instinfer::test_dsa {

using namespace test;
using attention::quest;

TEST_CASE("DSA by the keys themselves: all kept is dense attention, and so is what is kept") {
  test::check_method<own_dsa>({.keep_tokens = 1.0}, {.keep_tokens = budget::at_most(20)});
}

TEST_CASE_TEMPLATE("DSA takes the tokens of the largest index scores", Path, reference::path,
                   cpu::path) {
  // Scores that fp8 cannot confuse: a third of the keys lies along the queries, the others against
  // them.
  std::mt19937 random(111);
  normal_distribution normal;
  workload::index_sample s{.dim = 128, .heads = 4};
  std::vector<float> direction(128);
  std::ranges::generate(direction, [&] { return normal(random); });
  token_list good;
  for (int t = 0; t < 300; ++t) {
    const bool along = random() % 3 == 0;
    if (along) {
      good.push_back(t);
    }
    for (const float x : direction) {
      s.keys.push_back((along ? 1.0f : -1.0f) * x + 0.2f * normal(random));
    }
  }
  for (int h = 0; h < 4; ++h) {
    std::ranges::transform(direction, std::back_inserter(s.q),
                           [&](float x) { return x + 0.2f * normal(random); });
  }
  s.weights = {1.0f, 0.5f, 0.1f, 2.0f};
  const auto k = static_cast<std::int64_t>(good.size());
  indexed<dsa, Path> some(s, dsa{.keep_tokens = budget::exactly(k)});
  CHECK(some.tokens(0) == good);
  CHECK(some.d.traffic.summary_bytes == 300 * 132);  // every key is read: codes and a scale
  CHECK(some.d.traffic.filtered_bytes + some.d.traffic.buffer_bytes ==
        2 * good.size() * test::row_bytes);
  CHECK(some.d.seen.heads[0].products == 4 * 300);
  test::check_plan_is_access(some.d);
  CHECK(some.tokens(0) == good);  // the same again
  // Tokens of lower score change nothing.
  const std::vector<float> row(64, 0.1f);
  std::vector<float> against(128);
  std::ranges::transform(direction, against.begin(), [](float x) { return -x; });
  some.d.append(row, row, against);
  CHECK(some.tokens(0) == good);
  // Another weight that vetoes makes the others better.
  std::vector<float> vetoes{-1, -1, -1, -1};
  some.d.attend(some.q, {s.q, vetoes});
  for (const int t : some.d.folded()) {
    CHECK(!std::ranges::binary_search(good, t));
  }
}

TEST_CASE("index scores are those of fp64 but for the rounding of the codes") {
  const workload::index_sample s = workload::index_topics{.tokens = 256, .queries = 2}();
  indexed<dsa> all(s, dsa{});
  const auto& keys = all.d.summary<dsa::index>();
  for (std::size_t i = 0; i < 2; ++i) {
    const index_query q = all.query(i);
    const index_set heads = index_set::range(0, 64);
    const index_set tokens = index_set::range(0, 256);
    std::vector<double> scores(256);
    keys.score<double>(q, heads, tokens, scores);
    const matrix qI = matrix_of(q.queries, 128);
    const matrix kI = matrix_of(s.keys, 128);
    const row_vector w = matrix_of(q.weights, 64).row(0);
    const row_vector exact = test::index_scores(qI, w, kI, test::tokens_from_to(0, 64));
    for (int t = 0; t < 256; ++t) {
      // |q|.|k| bounds the sum of absolute products, of which each is off by 2^-3 at most.
      const double band =
          (w.cwiseAbs().transpose().cwiseProduct(qI.rowwise().norm())).sum() * kI.row(t).norm() / 8;
      CHECK(std::abs(scores[static_cast<std::size_t>(t)] - exact[t]) <= band);
    }
    std::vector<float> in_float(256);
    keys.score<float>(q, heads, tokens, in_float);
    for (std::size_t t = 0; t < 256; ++t) {
      CHECK(static_cast<double>(in_float[t]) == doctest::Approx(scores[t]).epsilon(1e-4).scale(10));
    }
  }
}

TEST_CASE("K is the index key if its true rows are long enough, whatever the rows of V are") {
  const auto append = []<class Format>(std::type_identity<Format>) {
    engine_base<design<own_dsa, layout::token_indexed<>, flash::instcsd, transfer::in_storage>,
                Format, store::memory>
        cache({.layers = 1, .q_heads = 1, .kv_heads = 1}, {.bytes = 1 << 20});
    const sequence seq = cache.open();
    const std::vector<float> k(Format::k_dim, 1.0f), v(Format::v_dim, 1.0f);
    return test::refusal_of([&] { cache.append(seq, 0, k, v); });
  };
  CHECK(append(std::type_identity<kv_format<fp32, 64, 20>>{}) == "no error");
  CHECK(test::says(append(std::type_identity<kv_format<fp32, 50, 64>>{}),
                   "index keys must be [1, 64], got 0 values"));
}

TEST_CASE("index keys and queries of another shape are refused, and the cache is as before") {
  const workload::index_sample s = workload::index_topics{.tokens = 20, .heads = 4, .queries = 1}();
  const test::random_cache<method_format> data(131, 20, 1, 1);
  decoder<dsa, cpu::path> d(dsa{});
  const auto append_refusal = [&](std::span<const float> keys) {
    const std::string message = test::refusal_of([&] { d.append(data.k, data.v, keys); });
    CHECK(d.engine.positions(d.seq, 0) == 0);
    CHECK(d.summary<dsa::index>().keys().empty());
    return message;
  };
  CHECK(test::says(append_refusal({}), "index keys must be [20, 128], got 0 values"));
  CHECK(test::says(append_refusal(std::span(s.keys).first(19 * 128)), "got 2432 values"));
  std::vector<float> bad = s.keys;
  bad[5] = std::numeric_limits<float>::infinity();
  CHECK(test::says(append_refusal(bad), "index keys must be finite"));
  decoder<quest, cpu::path> none(quest{});
  CHECK(test::says(test::refusal_of([&] { none.append(data.k, data.v, s.keys); }),
                   "index keys must be [20, 0], got 2560 values"));
  d.append(data.k, data.v, s.keys);
  d.out.assign(64, -1.0f);
  const auto attend_refusal = [&](const index_query& q) {
    const std::string message = test::refusal_of([&] { d.attend(data.q, q); });
    CHECK(d.out == std::vector<float>(64, -1.0f));
    return message;
  };
  CHECK(test::says(attend_refusal({}), "index queries must be [1, 128], got 64 values"));
  CHECK(test::says(attend_refusal({std::span(s.q).first(501), s.weights}),
                   "queries must be [heads, index_dim]"));
  CHECK(test::says(attend_refusal({std::span(s.q).first(4 * 64), s.weights}),
                   "index queries must be [4, 128], got 256 values"));
  std::vector<float> nans = s.weights;
  nans[2] = std::nanf("");
  CHECK(test::says(attend_refusal({s.q, nans}), "queries and weights must be finite"));
  std::vector<float> two(128, -1.0f);
  const std::vector<float> queries(128, 1.0f);
  CHECK(test::says(test::refusal_of([&] {
                     d.engine.attend(d.seq, 0, queries, two, d.work, parallel::serial{}, d.seen);
                   }),
                   "index queries must be [1, 128], got 64 values"));
  const index_query of_two{std::span(s.q).first(3 * 128), std::span(s.weights).first(3)};
  const attend_request one_row_short{.seq = d.seq, .q = queries, .out = two, .index = of_two};
  CHECK(test::says(test::refusal_of([&] {
                     d.engine.attend({&one_row_short, 1}, 0, d.work, parallel::serial{}, d.seen);
                   }),
                   "the index query must have weights [2, heads], a row for each query, got 3"));
  CHECK(two == std::vector<float>(128, -1.0f));
}

}  // namespace instinfer::test_dsa
