// Codes with a centre and a scale for each dim of K: error bounds, bytes, and V beside K in fused
// rows.

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "instinfer/codec/dim_scales.hpp"
#include "tests/support/coded_page.hpp"

namespace instinfer::test_dim_scales {

namespace {

using namespace test;

static_assert(PageCodec<int8_dims<>> && PageCodec<int4_dims<bf16>>);
static_assert(dim_bytes<int8_dims<>> == 4 && dim_bytes<int8_pages<>> == 0);
// 4 bytes of a scale for each of 128 dims, and of the page: 27 rows of 128 codes.
static_assert(elements_in<int8_dims<>>(4096, 128) == 4096 - 4 - 512);
static_assert(elements_in<int8_dims<>>(4096) == elements_in<int8_pages<>>(4096));
static_assert(elements_in<int4_dims<>>(4096, 128) == (4096 - 512) / 36 * 64);
static_assert(elements_in<int8_dims<>>(512, 128) == 0);
static_assert(!int8_dims<fp32>::holds(0x1.01p127f) && int8_dims<fp32>::holds(0x1p127f));
static_assert(!int4_dims<fp32>::holds(65505.0f));

// A page of rows of 64 dims of K and, if fused, as many of V.
template <class Codec>
struct rows_page {
  static constexpr std::uint32_t dims = 64;
  std::uint32_t tokens;
  std::uint32_t row;  // values of a row
  std::vector<typename Codec::element> values;
  std::vector<std::byte> bytes = std::vector<std::byte>(4096, std::byte{0xA5});

  rows_page(const std::vector<float>& of, std::uint32_t row_values)
      : tokens{static_cast<std::uint32_t>(of.size()) / row_values},
        row{row_values},
        values{as_elements<Codec>(of)} {
    Codec::encode(values, {tokens, dims, row, 0}, bytes);
  }
  double appended(std::uint32_t t, std::uint32_t i) const {
    return as_double(to_float(values[t * row + i]));
  }
  // Read as the header says: bf16 in front of the page's scale, all scales, then all centres.
  double parameter(std::uint32_t i) const {
    bf16 x;
    std::memcpy(&x, bytes.data() + 4096 - Codec::scale_bytes - 4 * dims + 2 * i, sizeof(x));
    return as_double(to_float(x));
  }
  double scale(std::uint32_t dim) const { return parameter(dim); }
  double centre(std::uint32_t dim) const { return parameter(dims + dim); }
  double code(std::uint32_t t, std::uint32_t i) const {
    return as_double(
        Codec::value(reinterpret_cast<const typename Codec::packed*>(bytes.data()), t * row + i));
  }
  double range(std::uint32_t dim) const {
    double low = 1e300;
    double high = -1e300;
    for (std::uint32_t t = 0; t < tokens; ++t) {
      low = std::min(low, appended(t, dim));
      high = std::max(high, appended(t, dim));
    }
    return high - low;
  }
  // Of K of the dim: steps of `of_step` of its scale; decoded as page_dims does it.
  void check(double of_step, double codes) const {
    const page_dims<Codec> stored(bytes.data(), bytes.size(), dims);
    for (std::uint32_t i = 0; i < dims; ++i) {
      const double half = range(i) / 2 + 0x1p-8 * std::abs(centre(i)) * (1 + 0x1p-7);
      REQUIRE(scale(i) <= std::max(half / codes, 0x1p-126) * (1 + 0x1p-7 + 8 * eps));
      for (std::uint32_t t = 0; t < tokens; ++t) {
        const double decoded = centre(i) + scale(i) * code(t, i);
        REQUIRE(std::abs(decoded - appended(t, i)) <=
                of_step * scale(i) + 4 * eps * (std::abs(decoded) + codes * scale(i)));
        const float mine = stored.value(static_cast<float>(code(t, i)), i);
        REQUIRE(std::abs(as_double(mine) - decoded) <=
                2 * eps * (std::abs(centre(i)) + std::abs(decoded)) + 0x1p-149);
      }
    }
  }
};

// Dims of all sizes, some far from zero.
std::vector<float> uneven(std::size_t n, std::uint32_t row) {
  std::vector<float> x = value_sets(n, 60000.0f)[0];
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t dim = i % row;
    x[i] = dim < 64
               ? std::ldexp(x[i], static_cast<int>(dim % 16) - 8) + (dim % 3 == 0 ? 100.0f : 0.0f)
               : x[i];
  }
  return x;
}

}  // namespace

TEST_CASE_TEMPLATE("int8: half a step of the dim's own range", E, fp16, bf16, fp32) {
  for (const std::vector<float>& set : value_sets(40 * 64, std::min(largest_of<E>, 0x1p127f))) {
    rows_page<int8_dims<E>>(set, 64).check(0.5 + 127 * 4 * eps, 127);
  }
  rows_page<int8_dims<E>>(uneven(40 * 64, 64), 64).check(0.5 + 127 * 4 * eps, 127);
}

TEST_CASE_TEMPLATE("int4: a step of a group in [-1, 1], and fp16 rounding of step and minimum", E,
                   fp16, bf16, fp32) {
  // Half of 2 / 15; the minimum is off by 2^-12, 15 steps by 2 * 2^-11.
  const double of_step = 1.0 / 15 + 0x1p-12 + 2 * 0x1p-11 + 8 * eps;
  for (const std::vector<float>& set : value_sets(40 * 64, 60000.0f)) {
    rows_page<int4_dims<E>>(set, 64).check(of_step, 1);
  }
  rows_page<int4_dims<E>>(uneven(40 * 64, 64), 64).check(of_step, 1);
}

TEST_CASE("fused rows: the page's scale is that of V, whatever K has") {
  std::vector<float> x = uneven(20 * 128, 128);
  float most = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = i % 128 == 5 ? 1000.0f + static_cast<float>(i / 128) : x[i];
    most = i % 128 >= 64 ? std::max(most, std::abs(to_float(from_float<fp16>(x[i])))) : most;
  }
  const rows_page<int8_dims<>> page(x, 128);
  page.check(0.5 + 127 * 4 * eps, 127);
  const float scale = page_scale<int8_dims<>>(page.bytes.data(), page.bytes.size())();
  CHECK(scale == doctest::Approx(as_double(most) / 127));
  for (std::uint32_t t = 0; t < 20; ++t) {
    for (std::uint32_t i = 64; i < 128; ++i) {
      REQUIRE(std::abs(page.code(t, i) * as_double(scale) - page.appended(t, i)) <=
              as_double(scale) * (0.5 + 3 * 127 * eps));
    }
  }
  for (std::size_t b = 20 * 128; b < 4096 - 4 - 256; ++b) {
    REQUIRE(page.bytes[b] == std::byte{0});
  }
}

TEST_CASE("pages of V, and of K by dim, are those of the plain codec") {
  const auto values = as_elements<int8_pages<>>(value_sets(3000, 100.0f)[0]);
  CHECK(coded_page<int8_dims<>>(values).bytes == coded_page<int8_pages<>>(values).bytes);
  CHECK(coded_page<int4_dims<>>(values).bytes == coded_page<int4_groups<>>(values).bytes);
}

TEST_CASE("a scale that bf16 can hold is not rounded up, and the ends of a dim are exact") {
  std::vector<float> rows(std::size_t{2} * 64);
  for (std::size_t i = 0; i < 64; ++i) {
    rows[i] = 8 + 2 * 127;
    rows[64 + i] = 8 - 2 * 127;
  }
  const rows_page<int8_dims<fp32>> page(rows, 64);
  CHECK(page.scale(5) == 2);
  CHECK(page.centre(5) == 8);
  CHECK(page.code(0, 5) == 127);
  CHECK(page.code(1, 5) == -127);
  CHECK(int8_dims<fp32>::holds(0x1p127f));
  CHECK(int8_dims<fp32>::holds(-0x1p127f));
  CHECK(!int8_dims<fp32>::holds(-0x1.01p127f));
}

}  // namespace instinfer::test_dim_scales
