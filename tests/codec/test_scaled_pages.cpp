// Codecs alone: every code, the error bounds that their headers state, and values that try to break them.

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include <doctest/doctest.h>

#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/codec/scaled_pages.hpp"

namespace instinfer::test_scaled_pages {

static_assert(PageCodec<plain_pages<fp16>> && PageCodec<int8_pages<>> &&
              PageCodec<fp8_pages<bf16>>);
static_assert(PageCodec<int4_groups<fp32>> && !PageCodec<fp16> && !PageCodec<int4_group>);
static_assert(elements_in<plain_pages<fp16>>(4096) == 2048);
static_assert(elements_in<int8_pages<>>(4096) == 4092 && elements_in<int8_pages<>>(3) == 0);
static_assert(elements_in<int4_groups<>>(4096) == 113 * 64 && elements_in<int4_groups<>>(35) == 0);
static_assert(entry_size_of<int4_groups<>>.sealed(64 * 7, 3) == 36 * 7);
static_assert(entry_size_of<int8_pages<>>.sealed(1000, 3) == 1000 + 3 * 4);
static_assert(entry_size_of<plain_pages<fp32>>.sealed(10, 3) == 40);

namespace {

constexpr double eps = 0x1p-24;  // of fp32

double as_double(float x) { return static_cast<double>(x); }

// A page of n values: encoded, and decoded again.
template <class Codec>
struct coded_page {
  explicit coded_page(const std::vector<typename Codec::element>& values)
      : bytes(page_bytes, std::byte{0xA5}) {
    Codec::encode(values, bytes);
    scale = page_scale<Codec>(bytes.data(), bytes.size())();
    for (std::size_t i = 0; i < values.size(); ++i) {
      decoded.push_back(Codec::value(packed(), i) * scale);
    }
  }
  const typename Codec::packed* packed() const {
    return reinterpret_cast<const typename Codec::packed*>(bytes.data());
  }

  static constexpr std::size_t page_bytes = 4096;
  std::vector<std::byte> bytes;
  float scale = 0;
  std::vector<float> decoded;
};

// Values that try to break a codec, beside normal ones: all equal, zero, denormal, of huge range, with one outlier.
std::vector<std::vector<float>> value_sets(std::size_t n, float largest) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<std::vector<float>> sets(9, std::vector<float>(n));
  for (std::size_t i = 0; i < n; ++i) {
    const float x = normal(random);
    sets[0][i] = x;
    sets[1][i] = 0.7f;
    sets[2][i] = 0.0f;
    sets[3][i] = static_cast<float>(i % 257) * std::numeric_limits<float>::denorm_min();
    sets[4][i] = std::clamp(std::ldexp(x, static_cast<int>(i % 80) - 40), -largest, largest);
    sets[5][i] = i == 17 ? 1000.0f : 0.01f * x;
    sets[6][i] = i % 2 == 0 ? largest : -largest;
    sets[7][i] = -3.0f;
    sets[8][i] = 100.0f + 0.001f * x;
  }
  return sets;
}

template <class Codec>
std::vector<typename Codec::element> as_elements(const std::vector<float>& x) {
  std::vector<typename Codec::element> values;
  for (const float value : x) {
    values.push_back(from_float<typename Codec::element>(value));
  }
  return values;
}

template <class Element>
constexpr float largest_of = std::is_same_v<Element, fp16> ? 65504.0f : 3e38f;

}  // namespace

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

// Neighbours bracket a value; the nearest is chosen, ties to the even one. Above 448 there is nothing.
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

TEST_CASE("integers are rounded to nearest, ties to even") {
  for (const float x : {0.0f, 0.5f, 1.5f, 2.5f, 126.5f, 0.49999997f, 14.499999f, 4194303.5f}) {
    CHECK(round_to_int(x) == static_cast<int>(std::nearbyint(x)));
    CHECK(round_to_int(-x) == static_cast<int>(std::nearbyint(-x)));
  }
}

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

TEST_CASE_TEMPLATE("int4 groups: (max - min) / 30 and the rounding of step and minimum", E, fp16,
                   bf16, fp32) {
  using codec = int4_groups<E>;
  for (const std::vector<float>& set : value_sets(50 * 64, 60000.0f)) {
    const auto values = as_elements<codec>(set);
    const coded_page<codec> page(values);
    for (std::size_t g = 0; g < values.size() / 64; ++g) {
      double min = 1e30;
      double max = -1e30;
      for (std::size_t i = g * 64; i < (g + 1) * 64; ++i) {
        min = std::min(min, as_double(to_float(values[i])));
        max = std::max(max, as_double(to_float(values[i])));
      }
      const double step = as_double(to_float(page.packed()[g].step));
      const double low = as_double(to_float(page.packed()[g].low));
      CHECK(std::abs(low - min) <= std::max(std::abs(min) * 0x1p-11, 0x1p-25));
      CHECK(std::abs(step - (max - min) / 15) <=
            std::max((max - min) / 15 * 0x1p-11, 0x1p-25) * (1 + 2 * eps));
      const double rounding = std::abs(low - min) + 15 * std::abs(step - (max - min) / 15);
      for (std::size_t i = g * 64; i < (g + 1) * 64; ++i) {
        const double x = as_double(to_float(values[i]));
        // fp32: the difference from low, its quotient, and the decoded sum.
        const double arithmetic = 4 * eps * (std::abs(x) + std::abs(low) + 15 * step);
        REQUIRE(std::abs(x - as_double(page.decoded[i])) <=
                (max - min) / 30 + rounding + arithmetic);
        if (min == max && std::is_same_v<E, fp16>) {
          REQUIRE(as_double(page.decoded[i]) == x);
        }
      }
    }
  }
}

TEST_CASE("int4 groups: 36 bytes for 64 values, the even code in the high half of a byte") {
  std::vector<fp32> values(64);
  for (std::size_t i = 0; i < 64; ++i) {
    values[i] = static_cast<float>(i % 16);  // steps of 1 from 0
  }
  std::vector<std::byte> page(100, std::byte{0xA5});
  int4_groups<fp32>::encode(values, page);
  for (std::size_t b = 0; b < 32; ++b) {
    CHECK(std::to_integer<std::size_t>(page[b]) == (2 * b % 16) * 16 + (2 * b + 1) % 16);
  }
  CHECK(page[32] == std::byte{0x00});  // 1.0 in fp16, little-endian
  CHECK(page[33] == std::byte{0x3C});
  CHECK((page[34] == std::byte{0} && page[35] == std::byte{0}));
  for (std::size_t b = 36; b < page.size(); ++b) {
    CHECK(page[b] == std::byte{0});
  }
  CHECK(int4_groups<>::holds(-65504.0f));
  CHECK(!int4_groups<>::holds(65520.0f));
}

TEST_CASE("a last group that is not full ends in zeros, which its minimum and maximum see") {
  const std::vector<fp32> values(70, 3.0f);
  const coded_page<int4_groups<fp32>> page(values);
  CHECK(to_float(page.packed()[0].step) == 0.0f);
  CHECK(to_float(page.packed()[1].low) == 0.0f);
  CHECK(page.decoded[0] == 3.0f);
  CHECK(page.decoded[69] == doctest::Approx(3.0).epsilon(0.001));
}

TEST_CASE("what is left of a page is zero") {
  const coded_page<int8_pages<>> page(std::vector<fp16>(100, from_float<fp16>(1.0f)));
  for (std::size_t b = 100; b < 4092; ++b) {
    CHECK(page.bytes[b] == std::byte{0});
  }
  CHECK(page.scale == 1.0f / 127.0f);
}

}  // namespace instinfer::test_scaled_pages
