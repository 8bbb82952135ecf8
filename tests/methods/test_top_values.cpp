// FlexGen's top values: the rows of V with the largest weights.

#include "instinfer/layout/dim_indexed.hpp"
#include "instinfer/methods/top_values.hpp"
#include "tests/support/decoder.hpp"

namespace instinfer::test_top_values {

using namespace test;
using attention::top_values;

namespace {

template <class Path, class Layout = layout::token_indexed<>>
struct on {
  using path = Path;
  using layout = Layout;
};

}  // namespace

TEST_CASE_TEMPLATE("top values: exact weights, those of the largest rows, not normalised anew",
                   Where, on<reference::path>, on<cpu::path>,
                   on<cpu::path, layout::dim_indexed<>>) {
  using Path = typename Where::path;
  for (const int group : {1, 3}) {
    for (const int tokens : {0, 1, 16, 17, 400}) {
      for (const double share : {0.1, 0.5, 1.0}) {
        CAPTURE(group);
        CAPTURE(tokens);
        CAPTURE(share);
        test::random_cache<test::method_format> data(51, tokens, group, 1);
        if (group == 3) {
          data.multiply_v(test::near_largest);
        }
        decoder<top_values, Path, typename Where::layout> d({.keep_values = share}, group);
        d.append(data.k, data.v);
        d.attend(data.q);
        const matrix K = data.K(0, 0, tokens);
        const matrix V = data.V(0, 0, tokens);
        matrix p(group, tokens);
        for (int h = 0; h < group && tokens > 0; ++h) {
          p.row(h) = test::defined_softmax(data.Q(h) * K.transpose() / 8.0);  // 64 dims
        }
        const int keep = test::defined_kept(share, tokens);
        row_vector rank = p.colwise().sum();
        if (tokens > 0) {
          rank[tokens - 1] = 10;  // the newest is always kept
        }
        const token_list kept = test::largest(rank, keep);
        CHECK(d.folded() == kept);
        for (int h = 0; h < group; ++h) {
          const row_vector expected = p.row(h)(kept) * V(kept, Eigen::all);
          CHECK(test::relative_error(rows_of(d.out, static_cast<std::size_t>(h), 1), expected) <=
                test::tolerance<Path>(tokens));
          // That of all tokens: the kept weights stay shares of all weights.
          if (tokens > 0) {
            CHECK(static_cast<double>(d.log_sum_exp[static_cast<std::size_t>(h)]) ==
                  doctest::Approx(test::defined_log_sum_exp(data.Q(h) * K.transpose() / 8.0))
                      .epsilon(2e-6));
          }
        }
        CHECK(d.traffic.filtered_bytes + d.traffic.buffer_bytes ==
              static_cast<std::uint64_t>(tokens + keep) * test::row_bytes);
        test::check_plan_is_access(d);
      }
    }
  }
}

TEST_CASE_TEMPLATE("top values: exact weights with biases and a learned sink", Where,
                   on<reference::path>, on<cpu::path>) {
  constexpr int tokens = 200;
  const test::random_cache<test::method_format> data(52, tokens, 2, 1);
  const std::vector<float> slopes{0.05f, 0.2f};
  const std::vector<float> sinks{3.0f, -1.0f};
  decoder<top_values, typename Where::path> d({.keep_values = 0.2}, 2, 1,
                                              {.slopes = slopes, .sink_logits = sinks});
  d.append(data.k, data.v);
  d.attend(data.q);
  const token_list kept = d.folded();
  CHECK(kept.size() == 40);
  for (int h = 0; h < 2; ++h) {
    const auto head = static_cast<std::size_t>(h);
    row_vector logits(tokens + 1);
    logits << data.Q(h) * data.K(0, 0, tokens).transpose() / 8.0, static_cast<double>(sinks[head]);
    for (int t = 0; t < tokens; ++t) {
      logits[t] -= static_cast<double>(slopes[head]) * (tokens - 1 - t);
    }
    const row_vector p = test::defined_softmax(logits);
    const row_vector expected = p(kept) * data.V(0, 0, tokens)(kept, Eigen::all);
    CHECK(test::relative_error(rows_of(d.out, head, 1), expected) <=
          test::tolerance<typename Where::path>(tokens));
    CHECK(static_cast<double>(d.log_sum_exp[head]) ==
          doctest::Approx(test::defined_log_sum_exp(logits)).epsilon(1e-5));
  }
}

TEST_CASE("top values on the synthetic workload: a tenth of V gives an error below 1e-2") {
  const workload::sample s = workload::topics{}();
  const matrix K = matrix_of(s.k);
  const matrix V = matrix_of(s.v);
  decoder<top_values, cpu::path> d({});
  d.append(s.k, s.v);
  double error = 0;
  double mass = 0;
  double least = 1;
  for (int i = 0; i < s.queries(); ++i) {
    const auto q = rows_of(s.q, static_cast<std::size_t>(i), 1);
    d.attend(q);
    error += error_against(d, test::defined_attention(matrix_of(q).row(0), K, V)) / s.queries();
    const double held = test::mass_held(d, q, K);
    mass += held / s.queries();
    least = std::min(least, held);
    CHECK(d.traffic.pages_read >= 8192 / 16);                           // all of K
    CHECK(d.traffic.filtered_bytes == (8192 + 820) * test::row_bytes);  // and 10 % of V, rounded up
  }
  CHECK(error < 1e-2);  // 2.8e-3 measured on the specification's prototype
  CHECK(mass > 0.97);   // 0.986
  CHECK(least > 0.90);  // 0.939
}

TEST_CASE("top values: a larger share holds at least the mass of a smaller one") {
  test::check_mass_grows<top_values>(
      {{.keep_values = 0.02}, {.keep_values = 0.1}, {.keep_values = 1.0}},
      workload::topics{.tokens = 1024, .queries = 6}());
}

}  // namespace instinfer::test_top_values
