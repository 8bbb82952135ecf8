// int4 groups: the error bounds that their header states, their bytes, and groups that are not
// full.

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "instinfer/codec/int4_groups.hpp"
#include "tests/support/coded_page.hpp"

namespace instinfer::test_int4_groups {

using namespace test;

static_assert(PageCodec<int4_groups<fp32>> && !PageCodec<fp16> && !PageCodec<int4_group>);
static_assert(elements_in<int4_groups<>>(4096) == 113 * 64 && elements_in<int4_groups<>>(35) == 0);
static_assert(entry_size_of<int4_groups<>>.sealed(64 * 7, 3) == 36 * 7);

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

}  // namespace instinfer::test_int4_groups
