// DeepSeek's fp8 rows: their 656 bytes against a transcription of the format, read byte by byte.

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "instinfer/codec/fp8_latent_rows.hpp"
#include "tests/support/coded_page.hpp"

namespace instinfer::test_fp8_latent_rows {

namespace {

using namespace test;

static_assert(PageCodec<fp8_latent_rows>);
static_assert(elements_in<fp8_latent_rows>(4096) == 6 * 576);
static_assert(entry_size_of<fp8_latent_rows>.sealed(576 * 7, 2) == 656 * 7);
static_assert(!fp8_latent_rows::holds(0x1.01p127f) && fp8_latent_rows::holds(-0x1p127f));

// e4m3 by its definition: bias 7, fraction of 3 bits.
double e4m3(std::uint8_t bits) {
  const int exponent = bits >> 3 & 15;
  const int fraction = bits & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return bits >= 128 ? -magnitude : magnitude;
}

// A row as FlashMLA describes it: 512 codes, 4 fp32 scales of 128 codes each, 64 values in bf16.
struct row_bytes {
  const std::byte* at;

  std::uint8_t code(std::size_t i) const { return std::to_integer<std::uint8_t>(at[i]); }
  double scale(std::size_t i) const {
    float scale;
    std::memcpy(&scale, at + 512 + i / 128 * 4, sizeof(scale));
    return as_double(scale);
  }
  double value(std::size_t i) const {
    if (i < 512) {
      return e4m3(code(i)) * scale(i);
    }
    std::uint16_t upper;
    std::memcpy(&upper, at + 528 + (i - 512) * 2, sizeof(upper));
    const std::uint32_t bits = std::uint32_t{upper} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return as_double(value);
  }
};

}  // namespace

TEST_CASE("656 bytes a row: codes, scales, and the rotated dims as they are") {
  for (const std::vector<float>& set : value_sets(6 * 576, 0x1p127f)) {
    const auto values = as_elements<fp8_latent_rows>(set);
    const coded_page<fp8_latent_rows> page(values);
    for (std::size_t r = 0; r < 6; ++r) {
      const row_bytes row{page.bytes.data() + r * 656};
      for (std::size_t i = 0; i < 576; ++i) {
        const double x = as_double(to_float(values[r * 576 + i]));
        REQUIRE(row.value(i) == as_double(page.decoded[r * 576 + i]));
        if (i >= 512) {
          REQUIRE(row.value(i) == x);
          continue;
        }
        double most = 0;
        for (std::size_t j = i / 128 * 128; j < i / 128 * 128 + 128; ++j) {
          most = std::max(most, std::abs(as_double(to_float(values[r * 576 + j]))));
        }
        REQUIRE(row.scale(i) == std::exp2(std::ceil(std::log2(std::max(most / 448, 1e-4)))));
        // No code is closer, and none of the two that are NaN is used.
        REQUIRE(row.code(i) % 128 != 127);
        double closest = 1e300;
        for (int c = 0; c < 256; ++c) {
          if (c % 128 != 127) {
            const double of_code = e4m3(static_cast<std::uint8_t>(c)) * row.scale(i);
            closest = std::min(closest, std::abs(of_code - x));
          }
        }
        REQUIRE(std::abs(row.value(i) - x) == closest);
        REQUIRE(std::abs(row.value(i) - x) <=
                std::max(0x1p-4 * std::abs(x), 0x1p-10 * row.scale(i)));
      }
    }
    for (std::size_t b = 6 * 656; b < page.bytes.size(); ++b) {
      REQUIRE(page.bytes[b] == std::byte{0});
    }
  }
}

TEST_CASE("a last row that is not full ends in zeros; decoded values are coded to themselves") {
  const std::vector<bf16> values(600, from_float<bf16>(-1.75f));
  const coded_page<fp8_latent_rows> page(values);
  CHECK(page.decoded == std::vector<float>(600, -1.75f));
  CHECK(fp8_latent_rows::value(page.packed(), 600) == 0.0f);
  CHECK(fp8_latent_rows::value(page.packed(), 2 * 576 - 1) == 0.0f);

  const std::vector<float> drawn = value_sets(576, 100.0f)[0];
  const coded_page<fp8_latent_rows> once(as_elements<fp8_latent_rows>(drawn));
  const coded_page<fp8_latent_rows> twice(as_elements<fp8_latent_rows>(once.decoded));
  CHECK(once.decoded == twice.decoded);
}

TEST_CASE("a scale is that of its own 128 values") {
  std::array<bf16, 576> x;
  x.fill(from_float<bf16>(1.0f));
  x[128] = from_float<bf16>(448.0f * 64);
  const fp8_latent_row row = fp8_latent_rows::encoded(x);
  CHECK(row.scales[0] == 0x1p-8f);  // the smallest power of two from 1 / 448
  CHECK(row.scales[1] == 64);
  CHECK(row.scales[2] == 0x1p-8f);
}

}  // namespace instinfer::test_fp8_latent_rows
