// Units built for unlike SIMD targets share a program: each computes with its own kernels, and the
// results agree to rounding. See CMakeLists.txt beside this file for the flags.

#include <doctest/doctest.h>

#include <cmath>

#include "attend_on_target.hpp"

using namespace instinfer::test;

#if defined(INSTINFER_HAVE_AVX2_UNIT)

namespace {

bool runs_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

// As in the tests of the paths: 40 eps sqrt(64 + tokens) of the output's norm, for each of the two.
void check_close(const std::vector<float>& a, const std::vector<float>& b, int tokens) {
  REQUIRE(a.size() == b.size());
  for (std::size_t head = 0; head < a.size(); head += 64) {
    double difference = 0;
    double norm = 0;
    for (std::size_t i = head; i < head + 64; ++i) {
      const double x = static_cast<double>(a[i]);
      const double y = static_cast<double>(b[i]);
      difference += (x - y) * (x - y);
      norm += y * y;
    }
    CHECK(norm > 0);
    CHECK(std::sqrt(difference / norm) <= 2 * 40 * 0x1p-24 * std::sqrt(64.0 + tokens));
  }
}

}  // namespace

TEST_CASE("units of two targets in one program keep to their own kernels") {
  if (!runs_avx2()) {
    MESSAGE("this processor has no AVX2: not run");
    return;
  }
  for (const int tokens : {1, 31, 32, 333, 1000}) {
    CAPTURE(tokens);
    const attended baseline = attend_baseline(61, tokens);
    const attended avx2 = attend_avx2(61, tokens);
    INFO("targets ", baseline.target, " and ", avx2.target);
    CHECK(avx2.target == "AVX2");
    CHECK(baseline.target != avx2.target);
    CHECK(baseline.path_name != avx2.path_name);
    CHECK(baseline.engine_name != avx2.engine_name);
    check_close(baseline.dense, avx2.dense, tokens);
    check_close(baseline.sparf, avx2.sparf, tokens);
    // Calling one does not change what the other gives.
    const attended again = attend_baseline(61, tokens);
    CHECK(again.dense == baseline.dense);
    CHECK(again.sparf == baseline.sparf);
    CHECK(again.target == baseline.target);
  }
}

#else

TEST_CASE("the baseline's unit alone: the compiler has no AVX2") {
  const attended baseline = attend_baseline(61, 333);
  CHECK(!baseline.target.empty());
  for (const float x : baseline.dense) {
    CHECK(std::isfinite(x));
  }
}

#endif
