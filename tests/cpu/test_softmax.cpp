// The softmax kernels against double: every length around a vector, any alignment, and the edges of
// the numbers. Nothing outside of a kernel's range may be touched.

#include <doctest/doctest.h>

#include <numeric>

#include "instinfer/cpu/softmax-inl.hpp"
#include "kernel_checks.hpp"

using namespace instinfer;
using namespace instinfer::test;

TEST_CASE("softmax kernels: every length from 0 to 70, at any alignment, against double") {
  std::mt19937 random(71);
  for (std::size_t n = 0; n <= 70; ++n) {
    CAPTURE(n);
    for (const std::size_t offset : {std::size_t{0}, std::size_t{1}, n % 16}) {
      guarded x(n, offset);
      for (const float cap : {0.0f, 5.0f}) {
        CAPTURE(cap);
        fill(x.span(), random, -40.0f, 40.0f);
        const std::vector<float> before(x.span().begin(), x.span().end());
        const float scale = 0.31f;
        const float max = cpu::scale_logits(x.data(), n, scale, cap);
        CHECK(x.guards_hold());
        float largest = -inf;
        for (std::size_t i = 0; i < n; ++i) {
          largest = std::max(largest, x.span()[i]);
          const double scaled = as_double(before[i]) * as_double(scale);
          // Scaling rounds once. With a cap: two products, tanh (Highway: 4 ulp, so 8 eps, at a
          // condition number below 1) and a product, 1/cap rounded: 12 eps.
          const double exact =
              cap > 0 ? as_double(cap) * std::tanh(scaled / as_double(cap)) : scaled;
          REQUIRE(std::abs(as_double(x.span()[i]) - exact) <=
                  (cap > 0 ? 12 : 1) * eps * std::abs(exact) * 1.01);
        }
        CHECK(max == largest);  // -inf for nothing

        const std::vector<float> logits(x.span().begin(), x.span().end());
        const float shift = n == 0 ? 1.0f : max;
        const float sum = cpu::exponentials(x.data(), x.data(), n, shift);
        CHECK(x.guards_hold());
        double exact_sum = 0;
        for (std::size_t i = 0; i < n; ++i) {
          // The difference as fp32 has it.
          const double exact = std::exp(as_double(logits[i] - shift));
          exact_sum += exact;
          REQUIRE(ulps(x.span()[i], exact) <= 2);
        }
        // 2 ulp a term, and n additions of positive terms.
        CHECK(std::abs(as_double(sum) - exact_sum) <=
              (4 + static_cast<double>(n)) * eps * exact_sum);

        const std::vector<float> p(x.span().begin(), x.span().end());
        cpu::multiply(x.data(), n, 0.7f);
        guarded to(n, 15 - offset);
        std::iota(to.span().begin(), to.span().end(), 1.0f);
        cpu::accumulate(to.data(), x.data(), n);
        CHECK(x.guards_hold());
        CHECK(to.guards_hold());
        for (std::size_t i = 0; i < n; ++i) {
          REQUIRE(x.span()[i] == p[i] * 0.7f);
          REQUIRE(to.span()[i] == static_cast<float>(i + 1) + x.span()[i]);
        }
      }
    }
  }
}

TEST_CASE("exp is within 2 ulp, and 0 where it is below 2^-126") {
  // Every 97th float of the interval that matters, [-100, -2^-20]; then the ends.
  const double least = -126 * std::log(2.0);
  const auto bits_of = [](float x) { return std::bit_cast<std::uint32_t>(x); };
  std::vector<float> x;
  double worst = 0;
  float worst_at = 0;
  const auto measure = [&] {
    std::vector<float> p = x;
    cpu::exponentials(p.data(), p.data(), p.size(), 0.0f);
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (as_double(x[i]) < least - 1e-5) {
        REQUIRE(p[i] == 0.0f);
      } else if (as_double(x[i]) < least) {  // fp32 cannot tell: 0 or the least normal number
        REQUIRE(p[i] <= 0x1.001p-126f);
      } else if (const double error = ulps(p[i], std::exp(as_double(x[i]))); error > worst) {
        worst = error;
        worst_at = x[i];
      }
    }
    x.clear();
  };
  for (std::uint32_t bits = bits_of(-0x1p-20f); bits <= bits_of(-100.0f); bits += 97) {
    x.push_back(std::bit_cast<float>(bits));
    if (x.size() == 4096) {
      measure();
    }
  }
  x.insert(x.end(),
           {-100.0f, -0.0f, 0.0f, -0x1p-149f, -0x1p-126f, -87.3365478515625f, -87.33654f, -88.0f});
  measure();
  MESSAGE("largest error of exp: ", worst, " ulp at ", worst_at);
  CHECK(worst <= 2);

  std::vector<float> edges{0.0f,    -0.0f,  -inf,
                           -200.0f, -1e30f, std::numeric_limits<float>::lowest()};
  cpu::exponentials(edges.data(), edges.data(), edges.size(), 0.0f);
  CHECK(edges == std::vector<float>{1, 1, 0, 0, 0, 0});
}

TEST_CASE("a power of 2 times exp changes the exponent alone, and what is then below 2^-126 is 0") {
  for (const std::uint32_t shift : {1u, 11u, 25u, 64u}) {
    CAPTURE(shift);
    const float factor = std::ldexp(1.0f, -static_cast<int>(shift));
    float x = 0.0f;
    for (int i = 0; i < 5000; ++i, x -= 0.02f) {
      float plain = 0.0f;
      float shifted = 0.0f;
      cpu::exponentials(&x, &plain, 1, 0.0f);
      CHECK(cpu::exponentials(&x, &shifted, 1, 0.0f, shift) == shifted);
      const double exact = std::ldexp(std::exp(as_double(x)), -static_cast<int>(shift));
      if (exact >= 0x1.001p-126) {
        REQUIRE(shifted == plain * factor);
      } else if (exact < 0x1.ffp-127) {
        REQUIRE(shifted == 0.0f);
      }
    }
  }
}

TEST_CASE("exponentials: equal logits, one-hot logits, masked ones") {
  for (std::size_t n = 1; n <= 70; ++n) {
    CAPTURE(n);
    for (const float level : {0.0f, 1e-30f, -3.0f, 1e30f, -1e30f}) {
      std::vector<float> x(n, level);
      CHECK(cpu::exponentials(x.data(), x.data(), n, level) == static_cast<float>(n));
      CHECK(x == std::vector<float>(n, 1.0f));
    }
    for (std::size_t hot = 0; hot < n; hot += 1 + n / 5) {
      for (const float other : {-3e38f, -inf, -1e4f}) {
        std::vector<float> x(n, other);
        x[hot] = 3e37f;
        const float max = cpu::scale_logits(x.data(), n, 1.0f, 0.0f);
        CHECK(max == 3e37f);
        CHECK(cpu::exponentials(x.data(), x.data(), n, max) == 1.0f);
        std::vector<float> expected(n, 0.0f);
        expected[hot] = 1.0f;
        CHECK(x == expected);
      }
    }
  }
}

TEST_CASE("denormals are numbers like others") {
  const float least = 0x1p-149f;
  std::vector<float> x(37, 3 * least);
  x[20] = -7 * least;
  std::vector<float> scaled = x;
  CHECK(cpu::scale_logits(scaled.data(), scaled.size(), 1.0f, 0.0f) == 3 * least);
  CHECK(scaled == x);
  cpu::multiply(scaled.data(), scaled.size(), 4.0f);
  CHECK(scaled[0] == 12 * least);
  CHECK(scaled[20] == -28 * least);
  cpu::accumulate(scaled.data(), x.data(), x.size());
  CHECK(scaled[36] == 15 * least);
}
