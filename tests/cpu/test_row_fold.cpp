// The fold kernel at the ends of the numbers: equal keys, one hot key, denormal values.

#include <doctest/doctest.h>

#include "kernel_checks.hpp"
#include "support/shared_attends.hpp"

using namespace instinfer;
using namespace instinfer::test;

namespace {

// A cache of one head on the CPU path, q and one output head.
template <Element E>
std::vector<float> attend_one(const std::vector<float>& k, const std::vector<float>& v,
                              const std::vector<float>& q, std::uint32_t parts = 1) {
  cpu::engine<insta, kv_format<E, 64>> engine({}, {.bytes = 4 << 20});
  std::vector<E> ke, ve;
  for (std::size_t i = 0; i < k.size(); ++i) {
    ke.push_back(from_float<E>(k[i]));
    ve.push_back(from_float<E>(v[i]));
  }
  const sequence seq = engine.open();
  engine.append(seq, 0, ke, ve);
  std::vector<float> out(64);
  typename cpu::engine<insta, kv_format<E, 64>>::scratch scratch;
  engine.attend(seq, 0, q, out, scratch, claimed_workers(parts));
  return out;
}

}  // namespace

TEST_CASE("weights that underflow, and values that are denormal in their own type") {
  // As dot products and sums.
  std::vector<float> k(32 * 64, 0.0f), v(32 * 64), q(64, 0.0f);
  for (std::size_t i = 0; i < v.size(); ++i) {
    v[i] = 0x1p-24f * static_cast<float>(i % 5);  // fp16 denormals
    k[i] = 0x1p-24f * static_cast<float>(i / 64);
  }
  q[3] = 0x1p24f;  // logits 0, 1, ... 31 by 1/8
  const std::vector<float> out = attend_one<fp16>(k, v, q);
  double sum = 0;
  std::vector<double> exact(64);
  for (std::size_t t = 0; t < 32; ++t) {
    const double p = std::exp(static_cast<double>(t) / 8);
    sum += p;
    for (std::size_t i = 0; i < 64; ++i) {
      exact[i] += p * as_double(v[t * 64 + i]);
    }
  }
  for (std::size_t i = 0; i < 64; ++i) {
    CHECK(std::abs(as_double(out[i]) - exact[i] / sum) <= 64 * eps * exact[i] / sum);
  }
}

TEST_CASE_TEMPLATE("attention of equal keys is the mean, of one hot key its value", E, fp32, fp16,
                   bf16) {
  for (const std::size_t tokens : {1u, 15u, 16u, 17u, 63u, 64u, 65u, 200u}) {
    CAPTURE(tokens);
    std::mt19937 random(static_cast<unsigned>(81 + tokens));
    std::vector<float> k(tokens * 64, 0.75f), v(tokens * 64), q(64, 1.5f);
    for (float& x : v) {
      x = to_float(from_float<E>(std::uniform_real_distribution<float>{-1.0f, 1.0f}(random)));
    }
    const std::vector<float> mean = attend_one<E>(k, v, q);
    for (std::size_t i = 0; i < 64; ++i) {
      double exact = 0;
      double magnitude = 0;
      for (std::size_t t = 0; t < tokens; ++t) {
        exact += as_double(v[t * 64 + i]) / static_cast<double>(tokens);
        magnitude += std::abs(as_double(v[t * 64 + i])) / static_cast<double>(tokens);
      }
      CHECK(std::abs(as_double(mean[i]) - exact) <= sum_bound(tokens + 3, magnitude));
    }
    const std::size_t hot = tokens * 2 / 3;
    std::fill_n(k.begin() + static_cast<std::ptrdiff_t>(hot * 64), 64, 60000.0f);
    const std::vector<float> one = attend_one<E>(k, v, q);
    CHECK(std::vector<float>(v.begin() + static_cast<std::ptrdiff_t>(hot * 64),
                             v.begin() + static_cast<std::ptrdiff_t>(hot * 64 + 64)) == one);
    // All keys far below zero: only the differences matter.
    std::ranges::fill(k, -60000.0f);
    CHECK(attend_one<E>(k, v, q) == mean);
  }
}

TEST_CASE_TEMPLATE("V near the largest number: an answer that is finite comes out finite", E, fp32,
                   bf16) {
  const float most = largest_finite<E>;
  const float size = to_float(from_float<E>(3e38f));
  for (const std::size_t tokens : {1u, 3u, 6u, 16u, 1024u, 1025u, 5000u}) {
    for (const std::uint32_t parts : {1u, 3u}) {
      CAPTURE(tokens);
      CAPTURE(parts);
      // Dim 0: all the largest number. Dim 1: 3e38, in the second half -3e38. Other dims: 1.
      std::vector<float> k(tokens * 64, 0.75f), v(tokens * 64, 1.0f), q(64, 1.5f);
      for (std::size_t t = 0; t < tokens; ++t) {
        v[t * 64] = most;
        v[t * 64 + 1] = 2 * t < tokens ? size : -size;
      }
      const std::vector<float> mean = attend_one<E>(k, v, q, parts);
      CHECK(mean[0] <= std::numeric_limits<float>::max());
      CHECK(as_double(mean[0]) >= as_double(most) - sum_bound(tokens + 3, as_double(most)));
      const double exact = tokens % 2 == 0 ? 0.0 : as_double(size) / static_cast<double>(tokens);
      CHECK(std::abs(as_double(mean[1]) - exact) <= sum_bound(tokens + 3, as_double(size)));
      CHECK(std::abs(as_double(mean[2]) - 1.0) <= sum_bound(tokens + 3, 1.0));
    }
  }
}

TEST_CASE("V as small as bf16 has it, down to 2^-126") {
  // Products of the least normal number and the weights 2^-11 lose up to 2^-149 each.
  for (const int power : {-126, -120, -110}) {
    const float size = std::ldexp(1.0f, power);
    std::vector<float> k(300 * 64, 0.75f), v(300 * 64, size), q(64, 1.5f);
    CHECK(std::abs(as_double(attend_one<fp32>(k, v, q)[5]) - as_double(size)) <=
          sum_bound(303, as_double(size)) + 0x1p-138);
  }
}
