// Pages of int8 and fp8 codes with a scale: the error bounds that their header states, and what is
// left of a page.

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "instinfer/codec/scaled_pages.hpp"
#include "tests/support/coded_page.hpp"

namespace instinfer::test_scaled_pages {

using namespace test;

static_assert(PageCodec<plain_pages<fp16>> && PageCodec<int8_pages<>> &&
              PageCodec<fp8_pages<bf16>>);
static_assert(elements_in<plain_pages<fp16>>(4096) == 2048);
static_assert(elements_in<int8_pages<>>(4096) == 4092 && elements_in<int8_pages<>>(3) == 0);
static_assert(entry_size_of<int8_pages<>>.sealed(1000, 3) == 1000 + 3 * 4);
static_assert(entry_size_of<plain_pages<fp32>>.sealed(10, 3) == 40);
static_assert(entry_size_of<int8_pages<fp16>>.open(10) == 20);
static_assert(entry_size{}.sealed(10, 3) == 0 && entry_size{}.open(10) == 0);

TEST_CASE_TEMPLATE("int8 pages: half a step", E, fp16, bf16, fp32) {
  using codec = int8_pages<E>;
  for (const std::vector<float>& set : value_sets(4000, largest_of<E>)) {
    const auto values = as_elements<codec>(set);
    const coded_page<codec> page(values);
    float most = 0;
    for (const E x : values) {
      most = std::max(most, std::abs(to_float(x)));
    }
    CHECK(as_double(page.scale) <= std::max(as_double(most) / 127 * (1 + eps), 0x1p-126));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double x = as_double(to_float(values[i]));
      // The quotient, the product and the scale are rounded in fp32: eps of at most 127 steps each.
      REQUIRE(std::abs(x - as_double(page.decoded[i])) <=
              as_double(page.scale) * (0.5 + 3 * 127 * eps));
    }
  }
}

TEST_CASE_TEMPLATE("fp8 pages: 2^-4 of the value, or half a subnormal step", E, fp16, bf16, fp32) {
  using codec = fp8_pages<E>;
  for (const std::vector<float>& set : value_sets(4000, largest_of<E>)) {
    const auto values = as_elements<codec>(set);
    const coded_page<codec> page(values);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double x = as_double(to_float(values[i]));
      REQUIRE(std::abs(x - as_double(page.decoded[i])) <=
              std::max(0x1p-4 * std::abs(x), 0x1p-10 * as_double(page.scale)) * (1 + 16 * eps) +
                  3 * eps * std::abs(x));
    }
  }
}

TEST_CASE_TEMPLATE("values up to the largest number are decoded to finite ones", Code, std::int8_t,
                   fp8) {
  const std::vector<float> values{largest_finite<fp32>, -largest_finite<fp32>, 3e38f, 0.0f};
  const coded_page<scaled_pages<Code, fp32>> page(values);
  const double step = as_double(page.scale) * (std::is_same_v<Code, fp8> ? 16 : 0.5);
  for (std::size_t i = 0; i < values.size(); ++i) {
    CHECK(is_finite(page.decoded[i]));
    CHECK(std::abs(as_double(page.decoded[i]) - as_double(values[i])) <= 1.001 * step);
  }
}

TEST_CASE("what is left of a page is zero") {
  const coded_page<int8_pages<>> page(std::vector<fp16>(100, from_float<fp16>(1.0f)));
  for (std::size_t b = 100; b < 4092; ++b) {
    CHECK(page.bytes[b] == std::byte{0});
  }
  CHECK(page.scale == 1.0f / 127.0f);
}

TEST_CASE("a page without a codec is its values, and zeros after them") {
  const std::vector<fp32> values{1.5f, -2};
  std::vector<std::byte> page(16, std::byte{0xA5});
  plain_pages<fp32>::encode(values, page);
  float stored[4];
  std::memcpy(stored, page.data(), 16);
  CHECK(std::vector<float>(stored, stored + 4) == std::vector<float>{1.5f, -2, 0, 0});
  CHECK(entry_size{.packed_bytes = 2}.sealed(10, 0) == 20);  // one element in each by default
}

}  // namespace instinfer::test_scaled_pages
