// fp8: every code, and rounding to it.

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

#include "instinfer/codec/fp8.hpp"
#include "tests/support/coded_page.hpp"

namespace instinfer::test_fp8 {

using namespace test;

static_assert(to_float(fp8{}) == 0.0f);

TEST_CASE("a code is 0 unless it is given") { CHECK(fp8{}.bits == 0); }

TEST_CASE("fp8: all 256 codes by their fields, and back") {
  for (int bits = 0; bits < 256; ++bits) {
    const fp8 code{static_cast<std::uint8_t>(bits)};
    const int exponent = bits / 8 % 16;
    const int fraction = bits % 8;
    const double magnitude =
        exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 7 - 3);
    if (bits % 128 == 127) {
      CHECK(std::isnan(to_float(code)));
      CHECK(to_fp8(to_float(code)).bits % 128 == 127);
    } else {
      CHECK(as_double(to_float(code)) == (bits < 128 ? magnitude : -magnitude));
      CHECK(to_fp8(to_float(code)) == code);
    }
  }
  CHECK(to_float(fp8{0x7E}) == 448.0f);
}

// Neighbours bracket a value; the nearest is chosen, ties to the even one. Above 448 there is
// nothing.
TEST_CASE("fp8 rounds to nearest, ties to even, and saturates") {
  for (std::uint8_t bits = 0; bits < 0x7E; ++bits) {
    const float low = to_float(fp8{bits});
    const float high = to_float(fp8{static_cast<std::uint8_t>(bits + 1)});
    const float middle = (low + high) / 2;  // exact
    const std::uint8_t even = bits % 2 == 0 ? bits : static_cast<std::uint8_t>(bits + 1);
    CHECK(to_fp8(middle).bits == even);
    CHECK(to_fp8(std::nextafter(middle, 1e9f)).bits == bits + 1);
    CHECK(to_fp8(std::nextafter(middle, -1e9f)).bits == bits);
    CHECK(to_fp8(-middle).bits == (even | 0x80));
    if (low >= 0x1p-6f) {  // normal
      CHECK((middle - low) / middle <= 0x1p-4f);
    }
  }
  for (const float x : {448.1f, 464.0f, 1e6f, std::numeric_limits<float>::infinity()}) {
    CHECK(to_fp8(x).bits == 0x7E);
    CHECK(to_fp8(-x).bits == 0xFE);
  }
  CHECK(to_fp8(0x1p-10f).bits == 0);  // a tie with zero
  CHECK(to_fp8(0x1p-149f).bits == 0);
}

}  // namespace instinfer::test_fp8
