// A float in one, two and three values of bf16: the sums, their errors, and pairs of vectors.

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

#include "instinfer/cpu/fold/bf16_parts-inl.hpp"
#include "tests/support/normals.hpp"

using namespace instinfer;

namespace {

double as_double(float x) { return x; }

template <std::uint32_t Parts>
double sum_of(float x) {
  double sum = 0;
  for (const bf16 part : cpu::bf16_parts<Parts>::of(x)) {
    sum += as_double(to_float(part));
  }
  return sum;
}

std::vector<float> some_floats() {
  std::mt19937 random(11);
  normal_distribution normal;
  std::vector<float> x{0.0f, 1.0f, -1.0f, 0x1.fffffep0f, 0x1.01p0f, 0x1.ff8p-40f, 3e38f, -3e38f};
  while (x.size() < 512) {
    x.push_back(normal(random) * std::ldexp(1.0f, static_cast<int>(x.size() % 60) - 30));
  }
  return x;
}

}  // namespace

TEST_CASE("three parts are the float, two and one are near it") {
  for (const float x : some_floats()) {
    CAPTURE(x);
    CHECK(sum_of<3>(x) == as_double(x));
    CHECK(std::abs(sum_of<2>(x) - as_double(x)) <= std::abs(as_double(x)) * 0x1p-16);
    CHECK(std::abs(sum_of<1>(x) - as_double(x)) <= std::abs(as_double(x)) * 0x1p-8);
  }
  CHECK(sum_of<1>(0x1.018p0f) == 0x1.02p0);  // to nearest, not down
  CHECK(sum_of<1>(0x1.00fp0f) == 0x1.00p0);
}

TEST_CASE_TEMPLATE("pairs of vectors have the same parts", parts, cpu::bf16_parts<1>,
                   cpu::bf16_parts<2>, cpu::bf16_parts<3>) {
  const std::vector<float> x = some_floats();
  constexpr std::size_t stride = 64;
  alignas(64) std::uint32_t pairs[stride * parts::count];
  for (std::size_t at = 0; at + 2 * cpu::lanes <= x.size(); at += cpu::lanes) {
    const cpu::float_tag f;
    const auto even = hwy::HWY_NAMESPACE::LoadU(f, &x[at]);
    const auto odd = hwy::HWY_NAMESPACE::LoadU(f, &x[at + cpu::lanes]);
    parts::pair(even, odd, pairs, stride);
    for (std::size_t i = 0; i < cpu::lanes; ++i) {
      const auto of_even = parts::of(x[at + i]);
      const auto of_odd = parts::of(x[at + cpu::lanes + i]);
      for (std::size_t part = 0; part < parts::count; ++part) {
        CHECK((pairs[part * stride + i] & 0xFFFF) == of_even[part].bits);
        CHECK((pairs[part * stride + i] >> 16) == of_odd[part].bits);
      }
    }
  }
}
