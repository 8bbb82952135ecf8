// SparQ: what the tests of the paths leave open.

#include "instinfer/layout/dual.hpp"
#include "instinfer/methods/sparf.hpp"
#include "instinfer/methods/sparq.hpp"
#include "tests/support/decoder.hpp"

namespace instinfer::test_sparq {

using namespace test;
using attention::sparq;

// (S r + 2 k d) / (2 S d) of dense attention's traffic: r = d/c and k = S/2c give 1/2c + 1/2c.
TEST_CASE_TEMPLATE("a compression c keeps 1/c of the dims and 1/2c of the tokens", Policy, sparq,
                   attention::sparf) {
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
