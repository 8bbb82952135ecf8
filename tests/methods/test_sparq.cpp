// SparQ: what the tests of the paths leave open.

#include <functional>

#include "instinfer/layout/dual.hpp"
#include "instinfer/methods/at_budget.hpp"
#include "instinfer/methods/sparf.hpp"
#include "instinfer/methods/sparq.hpp"
#include "tests/support/decoder.hpp"

namespace instinfer::test_sparq {

using namespace test;
using attention::sparf;
using attention::sparq;

// (S r + 2 k d) / (2 S d) of dense attention's traffic: r = d/c and k = S/2c give 1/2c + 1/2c.
TEST_CASE_TEMPLATE("a compression c keeps 1/c of the dims and 1/2c of the tokens", Policy, sparq,
                   sparf) {
  for (const std::uint32_t c : {1u, 2u, 4u, 8u, 16u}) {
    const Policy policy = Policy::at_compression(c);
    CHECK(policy.keep_dims.of(128, "r") == 128 / c);
    CHECK(policy.keep_tokens.of(3200, "k") == 1600 / c);
  }
  // SparQ's local window is a quarter of what is kept; SparF has none.
  CHECK(Policy::at_compression(8).local.of(100, "l") == (std::is_same_v<Policy, sparq> ? 25 : 0));
  CHECK(Policy{}.keep_dims.of(128, "r") == 16);
  CHECK(Policy{}.keep_tokens.of(1600, "k") == 100);
}

TEST_CASE_TEMPLATE("SparQ: mean values, constant values, bytes", Path, reference::path, cpu::path) {
  using on_dual = decoder<sparq, Path, layout::dual<>>;
  test::random_cache<method_format> data(121, 512, 2, 1);
  for (const double dims : {0.0625, 0.25, 1.0}) {
    on_dual all({.keep_dims = dims, .keep_tokens = 1.0}, 2);  // then dims do not matter
    all.append(data.k, data.v);
    all.attend(data.q);
    test::check_equals_attention_over_folded(all, data);
    CHECK(all.folded() == test::tokens_from_to(0, 512));
    on_dual some({.keep_dims = dims, .keep_tokens = 0.125}, 2);
    some.append(data.k, data.v);
    some.attend(data.q);
    const auto r = static_cast<std::uint64_t>(64 * dims);
    // 512 tokens fill whole pages of the row copies; the copy by dims may be in the buffer.
    CHECK(some.traffic.filtered_bytes + some.traffic.buffer_bytes == (512 * r + 2 * 64 * 64) * 4);
    test::check_plan_is_access(some);
  }
  on_dual mean({}, 2);
  mean.append(data.k, data.v);
  const row_vector expected = data.V(0, 0, 512).colwise().mean();
  for (std::size_t i = 0; i < 64; ++i) {
    CHECK(mean.template summary<attention::mean_value>()[i] ==
          doctest::Approx(expected[static_cast<int>(i)]).epsilon(1e-9));
  }
  std::ranges::fill(data.v, 0.75f);
  for (const double keep : {0.01, 0.3, 1.0}) {
    on_dual constant({.keep_dims = 0.1, .keep_tokens = keep}, 2);
    constant.append(data.k, data.v);
    constant.attend(data.q);
    for (const float x : constant.out) {
      CHECK(static_cast<double>(x) == doctest::Approx(0.75).epsilon(1e-5));
    }
  }
}

// With all dims, scores are the exact logits, so the definitions say which tokens are best.
TEST_CASE_TEMPLATE("SparF's settings for the heads of a group", Path, reference::path, cpu::path) {
  using on_dual = decoder<sparf, Path, layout::dual<>>;
  const test::random_cache<method_format> data(122, 300, 3, 1);
  const matrix K = data.K(0, 0, 300);
  matrix logits(3, 300), p(3, 300);
  for (int h = 0; h < 3; ++h) {
    logits.row(h) = data.Q(h) * K.transpose() / 8.0;
    p.row(h) = (logits.row(h).array() - logits.row(h).maxCoeff()).exp();
    p.row(h) /= p.row(h).sum();
  }
  const auto best = [](const row_vector& rank, int first, int last, int n) {
    token_list tokens = test::tokens_from_to(first, last);
    std::ranges::stable_sort(tokens, std::greater{}, [&](int t) { return rank[t]; });
    tokens.resize(static_cast<std::size_t>(n));
    std::ranges::sort(tokens);
    return tokens;
  };
  const auto folded_by = [&](const sparf& settings) {
    on_dual d(settings, 3);
    d.append(data.k, data.v);
    d.attend(data.q);
    if (!settings.blend) {
      test::check_equals_attention_over_folded(d, data);
    }
    return d.folded();
  };
  sparf s{.keep_dims = 1.0, .keep_tokens = budget::exactly(40), .blend = false};
  const row_vector sums = p.colwise().sum(), most = p.colwise().maxCoeff(),
                   of_logits = logits.colwise().sum(), of_one = logits.colwise().maxCoeff();
  CHECK(best(sums, 0, 300, 40) != best(most, 0, 300, 40));
  CHECK(best(sums, 0, 300, 40) != best(of_logits, 0, 300, 40));
  CHECK(folded_by(s) == best(sums, 0, 300, 40));
  s.tokens_over = attention::group_reduction::max;
  CHECK(folded_by(s) == best(most, 0, 300, 40));
  s.rank_logits = true;
  CHECK(folded_by(s) == best(of_one, 0, 300, 40));
  s.tokens_over = attention::group_reduction::sum;
  CHECK(folded_by(s) == best(of_logits, 0, 300, 40));
  s.local = 0.25;
  token_list with_newest = best(of_logits, 0, 290, 30);
  for (int t = 290; t < 300; ++t) {
    with_newest.push_back(t);
  }
  CHECK(folded_by(s) == with_newest);

  // |q| of three heads at dims 5, 9 and 20: the sums are 3, 4 and 2, the maxima 3, 2 and 2.
  std::vector<float> q(3 * 64, 0.0f);
  q[5] = -3.0f;
  q[9] = 2.0f;
  q[64 + 9] = 1.0f;
  q[2 * 64 + 9] = -1.0f;
  q[2 * 64 + 20] = 2.0f;
  const auto dim_of = [&](attention::group_reduction over) {
    on_dual d({.keep_dims = budget::exactly(1), .dims_over = over}, 3);
    d.append(data.k, data.v);
    d.attend(q);
    return d.seen.heads[0].chosen[static_cast<int>(attention::operation::top_dims)].at(0);
  };
  CHECK(dim_of(attention::group_reduction::sum) == std::vector<int>{9});
  CHECK(dim_of(attention::group_reduction::max) == std::vector<int>{5});
}

TEST_CASE("SparF as published: Alg. 1 at a compression") {
  const sparf s = sparf::as_published(16);
  CHECK(s.keep_dims == budget(1.0 / 16));
  CHECK(s.keep_tokens == budget(1.0 / 32));
  CHECK(s.local.of(100, "l") == 0);
  CHECK(s.dims_over == attention::group_reduction::sum);
  CHECK(s.tokens_over == attention::group_reduction::sum);
  CHECK(!s.rank_logits);
  CHECK(s.blend);
  CHECK(s.dense_layers == 0);
}

// (r / d + 2 k / S) / 2 of dense's bytes: 3/4 and 5/4 of a share, and one whole layer of 30.
TEST_CASE(
    "SparF for groups: fewer dims, more tokens, a quarter local, a dense layer where it fits") {
  const sparf one = sparf::for_groups(8);
  CHECK(one.keep_dims.of(64, "r") == 6);
  CHECK(one.keep_tokens.of(6400, "k") == 500);
  CHECK(one.local.of(500, "l") == 125);
  CHECK(one.dense_layers == 0);
  const sparf of_30 = sparf::for_groups(8, 30);  // 29 layers share 30/8 - 1 layers' bytes
  CHECK(of_30.keep_dims == budget(0.75 * (2.75 / 29)));
  CHECK(of_30.keep_tokens == budget(0.625 * (2.75 / 29)));
  CHECK(of_30.dense_layers == 1);
  CHECK(sparf::for_groups(16, 32).dense_layers == 1);  // half of the bytes
  CHECK(sparf::for_groups(16, 31).dense_layers == 0);
  CHECK(sparf::for_groups(1, 30).dense_layers == 0);
  CHECK(methods::at_budget<sparf>(1.0 / 8, 4096, 3, 30).keep_dims == of_30.keep_dims);
  CHECK(methods::at_budget<sparf>(1.0 / 8, 4096, 1, 30).keep_dims == budget(1.0 / 8));
}

TEST_CASE_TEMPLATE("SparF's dense layers fold every token, unless no other layer is left", Path,
                   reference::path, cpu::path) {
  const test::random_cache<method_format> data(123, 100, 2, 1);
  for (const int layers : {1, 2}) {
    decoder<sparf, Path, layout::dual<>> d(
        {.keep_tokens = budget::exactly(10), .blend = false, .dense_layers = 1}, 2, 1, {},
        std::uint64_t{64} << 20, layers);
    d.append(data.k, data.v);
    d.attend(data.q);
    CHECK(d.folded().size() == (layers == 1 ? 10 : 100));
    test::check_equals_attention_over_folded(d, data);
  }
}

TEST_CASE(
    "SparQ on the synthetic workload: the mean mends what is left out, where dims are enough") {
  const workload::sample s = workload::topics{}();
  const sparq half{.keep_dims = 0.5, .keep_tokens = budget::exactly(512)};
  sparq plain = half;
  plain.blend = false;
  const figures blended = measure<sparq, layout::dual<>>(half, s);
  const figures alone = measure<sparq, layout::dual<>>(plain, s);
  MESSAGE("blended ", blended.error, ", alone ", alone.error, ", mass ", alone.mass);
  CHECK(blended.error < alone.error);
  CHECK(blended.error < 1.5e-2);  // 0.59e-2 measured on the specification's prototype
  CHECK(alone.mass > 0.95);       // 0.981
}

}  // namespace instinfer::test_sparq
