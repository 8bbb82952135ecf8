#include <cmath>
#include <limits>
#include <random>
#include <string>

#include <doctest/doctest.h>

#include "instinfer/codec/element.hpp"

namespace instinfer::test_element {

static_assert(Element<fp16> && Element<bf16> && Element<fp32>);
static_assert(!Element<double> && !Element<int>);

TEST_CASE("every fp16 survives the way to fp32 and back") {
  for (std::uint32_t bits = 0; bits < 0x1'0000; ++bits) {
    const fp16 x{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(x);
    if (std::isnan(wide)) {
      CHECK(std::isnan(to_float(from_float<fp16>(wide))));
    } else {
      CHECK(from_float<fp16>(wide) == x);
    }
    CHECK(is_finite(x) == std::isfinite(wide));
  }
}

TEST_CASE("every bf16 survives the way to fp32 and back") {
  for (std::uint32_t bits = 0; bits < 0x1'0000; ++bits) {
    const bf16 x{static_cast<std::uint16_t>(bits)};
    const float wide = to_float(x);
    CHECK((std::isnan(wide) ? std::isnan(to_float(from_float<bf16>(wide)))
                            : from_float<bf16>(wide) == x));
    CHECK(is_finite(x) == std::isfinite(wide));
  }
}

// The neighbours of x on the fp16 grid bracket it, and the nearest is chosen, ties to the even one.
TEST_CASE("fp16 rounds to nearest, ties to even") {
  for (std::uint16_t bits = 0; bits < 0x7BFF; ++bits) {
    const double low = to_float(fp16{bits});
    const double high = to_float(fp16{static_cast<std::uint16_t>(bits + 1)});
    const float middle = static_cast<float>((low + high) / 2);  // exact: one more bit than fp16 has
    const std::uint16_t even = bits % 2 == 0 ? bits : static_cast<std::uint16_t>(bits + 1);
    CHECK(from_float<fp16>(middle).bits == even);
    CHECK(from_float<fp16>(std::nextafter(middle, 1e9f)).bits == bits + 1);
    CHECK(from_float<fp16>(std::nextafter(middle, -1e9f)).bits == bits);
    CHECK(from_float<fp16>(-middle).bits == (even | 0x8000));
  }
  // Below the middle between the largest and 2^16.
  CHECK(from_float<fp16>(65519.996f).bits == 0x7BFF);
  CHECK(from_float<fp16>(65520.0f).bits == 0x7C00);
  CHECK(from_float<fp16>(1e30f).bits == 0x7C00);
  CHECK(from_float<fp16>(0x1p-25f).bits == 0);  // a tie with zero, which is even
  CHECK(from_float<fp16>(0x1.000002p-25f).bits == 1);
}

TEST_CASE("bf16 rounds within half a unit in the last place") {
  std::mt19937 random(7);
  std::uniform_int_distribution<std::uint32_t> bits;
  for (int i = 0; i < 100'000; ++i) {
    const float x = std::bit_cast<float>(bits(random));
    if (!std::isfinite(x) || std::abs(x) > 3e38f || std::abs(x) < 1e-37f) {
      continue;
    }
    CHECK(std::abs(to_float(from_float<bf16>(x)) - x) <= std::abs(x) * rounding_error<bf16>);
    if (std::abs(x) < 65504.0f && std::abs(x) > 6.2e-5f) {
      CHECK(std::abs(to_float(from_float<fp16>(x)) - x) <= std::abs(x) * rounding_error<fp16>);
    }
  }
}

namespace {

// The element with these bits and its neighbour above: one unit in the last place apart.
template <Element E>
double step_above(std::uint16_t bits) {
  const E low{bits}, high{static_cast<std::uint16_t>(bits + 1)};
  return static_cast<double>(to_float(high)) - static_cast<double>(to_float(low));
}

}  // namespace

TEST_CASE("the largest number of each type, its rounding error, and its name") {
  CHECK(rounding_error<fp32> == std::numeric_limits<float>::epsilon() / 2.0);
  CHECK(rounding_error<fp16> == step_above<fp16>(from_float<fp16>(1.0f).bits) / 2);
  CHECK(rounding_error<bf16> == step_above<bf16>(from_float<bf16>(1.0f).bits) / 2);
  CHECK(largest_finite<fp32> == std::numeric_limits<float>::max());
  CHECK(largest_finite<fp16> == to_float(fp16{0x7BFF}));  // the next is infinity
  CHECK(largest_finite<bf16> == to_float(bf16{0x7F7F}));
  CHECK(std::isinf(to_float(fp16{0x7C00})));
  CHECK(std::isinf(to_float(bf16{0x7F80})));
  CHECK(std::string(element_name<fp32>) == "fp32");
  CHECK(std::string(element_name<fp16>) == "fp16");
  CHECK(std::string(element_name<bf16>) == "bf16");
}

}  // namespace instinfer::test_element
