// H2O against its definition, sums of weights over what is kept.

#include "instinfer/methods/h2o.hpp"
#include "tests/support/decoder.hpp"

namespace instinfer::test_h2o {

using namespace test;
using attention::h2o;

namespace {

class transcribed_h2o {
 public:
  transcribed_h2o(int heavy, int recent) : heavy_{heavy}, recent_{recent} {}

  matrix step(const matrix& Q, const matrix& K, const matrix& V, int t) {
    kept.push_back(t);
    sums.push_back(0);
    const double scale = 1.0 / std::sqrt(static_cast<double>(K.cols()));
    matrix out(Q.rows(), V.cols());
    for (Eigen::Index h = 0; h < Q.rows(); ++h) {
      const row_vector p =
          test::defined_softmax(Q.row(h) * K(kept, Eigen::all).transpose() * scale);
      out.row(h) = p * V(kept, Eigen::all);
      for (std::size_t i = 0; i < kept.size(); ++i) {
        sums[i] += p[static_cast<Eigen::Index>(i)];
      }
    }
    evicted.clear();
    while (static_cast<int>(kept.size()) > heavy_ + recent_) {  // one by one, the newest of equals
      const auto least =
          std::min_element(sums.rend() - static_cast<int>(sums.size()) + recent_, sums.rend());
      const auto at = sums.rend() - least - 1;
      evicted.push_back(kept[static_cast<std::size_t>(at)]);
      kept.erase(kept.begin() + at);
      sums.erase(sums.begin() + at);
    }
    return out;
  }

  token_list kept;
  std::vector<double> sums;
  token_list evicted;  // by the last step

 private:
  int heavy_;
  int recent_;
};

template <class Path>
void check_h2o(int heavy, int recent, int group, residence from) {
  const int tokens = 240;
  const test::random_cache<test::method_format> data(31, tokens, group, 1);
  const test::random_cache<test::method_format> queries(32, tokens, group, group);  // k as queries
  decoder<h2o, Path> d({.heavy = static_cast<std::uint32_t>(heavy),
                        .recent = static_cast<std::uint32_t>(recent),
                        .from = from},
                       group);
  transcribed_h2o expected(heavy, recent);
  const matrix K = data.K(0, 0, tokens);
  const matrix V = data.V(0, 0, tokens);
  for (int t = 0; t < tokens; ++t) {
    CAPTURE(t);
    const auto at = static_cast<std::size_t>(t);
    const auto q =
        rows_of(queries.k, at * static_cast<std::size_t>(group), static_cast<std::size_t>(group));
    d.append(rows_of(data.k, at, 1), rows_of(data.v, at, 1));
    d.attend(q);
    const auto attended = expected.kept.size() + 1;
    const matrix out = expected.step(matrix_of(q), K, V, t);
    for (int h = 0; h < group; ++h) {
      CHECK(test::relative_error(rows_of(d.out, static_cast<std::size_t>(h), 1), out.row(h)) <=
            test::tolerance<Path>(tokens));
    }
    const auto& past = d.template summary<attention::heavy_hitters>();
    REQUIRE(list_of(past.kept()) == expected.kept);
    REQUIRE(static_cast<int>(past.kept().count()) <= heavy + recent);
    for (int newest = std::max(0, t + 1 - recent); newest <= t; ++newest) {
      CHECK(past.kept().contains(static_cast<std::uint32_t>(newest)));
    }
    for (std::size_t i = 0; i < expected.sums.size(); ++i) {
      CHECK(past.weights()[i] == doctest::Approx(expected.sums[i]).epsilon(1e-5));
    }
    // What it reads is the cache, and no more.
    const std::uint64_t bytes = 2 * attended * test::row_bytes;
    CHECK(d.traffic.fast_bytes == (from == residence::fast ? bytes : 0));
    CHECK(d.traffic.filtered_bytes + d.traffic.buffer_bytes ==
          (from == residence::flash ? bytes : 0));
    CHECK((from == residence::flash || d.traffic.pages_read == 0));
  }
  test::check_plan_is_access(d);
}

}  // namespace

TEST_CASE("H2O: all kept is dense attention, and what is kept is attended exactly") {
  test::check_method<h2o>({.heavy = 300, .recent = 300}, {.heavy = 10, .recent = 6});
}

TEST_CASE_TEMPLATE("H2O is its definition, step by step", Path, reference::path, cpu::path) {
  check_h2o<Path>(12, 20, 1, residence::fast);
  check_h2o<Path>(20, 12, 3, residence::flash);
  check_h2o<Path>(0, 16, 1, residence::fast);
  check_h2o<Path>(16, 0, 2, residence::fast);
  check_h2o<Path>(300, 300, 1, residence::fast);
}

TEST_CASE("H2O drops the token of least weight among those that are not recent") {
  const workload::sample s = workload::hitter_stream{.tokens = 200}();
  decoder<h2o, cpu::path> d({.heavy = 16, .recent = 16});
  const auto& past = d.summary<attention::heavy_hitters>();
  const matrix K = matrix_of(s.k);
  for (int t = 0; t < s.tokens(); ++t) {
    const token_list before = list_of(past.kept());
    std::vector<double> sums(past.weights().begin(), past.weights().end());
    decode_token(d, s, t);
    if (before.size() < 32) {
      continue;
    }
    token_list all = before;
    all.push_back(t);
    sums.push_back(0);
    const row_vector p =
        test::defined_softmax(matrix_of(s.q).row(t) * K(all, Eigen::all).transpose() / 8.0);
    int gone = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
      sums[i] += p[static_cast<Eigen::Index>(i)];
    }
    const double least = *std::min_element(sums.begin(), sums.end() - 16);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!past.kept().contains(static_cast<std::uint32_t>(all[i]))) {
        ++gone;
        CHECK(sums[i] <= least + 1e-6);
        CHECK(i < all.size() - 16);
      }
    }
    CHECK(gone == 1);
  }
}

TEST_CASE("H2O forgets reclaimed tokens") {
  const workload::sample s = workload::hitter_stream{.tokens = 120}();
  decoder<h2o, cpu::path> d({.heavy = 20, .recent = 10});
  for (int t = 0; t < 100; ++t) {
    decode_token(d, s, t);
  }
  const auto& past = d.summary<attention::heavy_hitters>();
  token_list expected = list_of(past.kept());
  std::erase_if(expected, [](int t) { return t < 60; });
  REQUIRE(expected.size() < 30);
  d.engine.reclaim(d.seq, {.tokens_before = 60});
  CHECK(list_of(past.kept()) == expected);
  CHECK(past.weights().size() == expected.size());
  decode_token(d, s, 100);
  expected.push_back(100);
  CHECK(d.folded() == expected);
}

}  // namespace instinfer::test_h2o
