#include "instinfer/summaries/index_codec.hpp"
#include "tests/support/normals.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "instinfer/summaries/index_scoring.hpp"

namespace instinfer::test_index_codec {

using namespace attention;

namespace {

constexpr int dims = 128;
using row = std::array<float, dims>;

// A few dims are outliers, as LayerNorm's gains make them in models.
row random_row(std::mt19937& random, float outlier = 1.0f) {
  normal_distribution normal;
  row x;
  for (int i = 0; i < dims; ++i) {
    x[static_cast<std::size_t>(i)] = normal(random) * (i % 41 == 3 ? outlier : 1.0f);
  }
  return x;
}

double exact_dot(const row& a, const row& b) {
  double sum = 0;
  for (std::size_t i = 0; i < dims; ++i) {
    sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  }
  return sum;
}

// The OFP8 specification in its own terms: 1 sign, 4 exponent bits of bias 7, 3 fraction bits.
double e4m3(int code) {
  const int exponent = code >> 3 & 15;
  const int fraction = code & 7;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return (code & 0x80) != 0 ? -magnitude : magnitude;
}

template <class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const bad_argument& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("all 256 codes decode as the specification says, and encode to themselves") {
  for (int code = 0; code < 256; ++code) {
    CAPTURE(code);
    const fp8 x{static_cast<std::uint8_t>(code)};
    if ((code & 0x7F) == 0x7F) {
      CHECK(std::isnan(to_float(x)));
    } else {
      CHECK(static_cast<double>(to_float(x)) == e4m3(code));
      CHECK(to_fp8(to_float(x)) == x);
    }
  }
  CHECK(to_float(fp8{0x7E}) == 448.0f);
}

TEST_CASE("encoding takes the nearest code, ties to even, and saturates") {
  for (int code = 0; code + 1 < 0x7F; ++code) {
    CAPTURE(code);
    const auto low = static_cast<float>(e4m3(code));
    const auto high = static_cast<float>(e4m3(code + 1));
    const float middle = (low + high) / 2;  // exact
    const int even = code % 2 == 0 ? code : code + 1;
    for (const int sign : {0, 0x80}) {
      const float s = sign == 0 ? 1.0f : -1.0f;
      CHECK(to_fp8(s * middle).bits == (sign | even));
      CHECK(to_fp8(s * std::nextafter(middle, low)).bits == (sign | code));
      CHECK(to_fp8(s * std::nextafter(middle, high)).bits == (sign | (code + 1)));
    }
  }
  CHECK(to_fp8(1e6f).bits == 0x7E);
  CHECK(to_fp8(-std::numeric_limits<float>::infinity()).bits == 0xFE);
}

TEST_CASE("the scale is the smallest power of two that holds the vector") {
  std::mt19937 random(1);
  for (int round = 0; round < 300; ++round) {
    row x = random_row(random, 30.0f);
    const auto exponent = static_cast<int>(random() % 60) - 30;
    for (float& value : x) {
      value = std::ldexp(value, exponent);
    }
    const float scale = index_scale(x);
    float most = 0;
    for (const float value : x) {
      most = std::max(most, std::abs(value));
    }
    int e = 0;
    CHECK(std::frexp(scale, &e) == 0.5f);
    CHECK(most <= 448.0f * scale);
    CHECK(most > 224.0f * scale);
  }
  const auto of_one = [](float x) { return index_scale(std::span(&x, 1)); };
  CHECK(of_one(448.0f) == 1.0f);
  CHECK(of_one(std::nextafter(448.0f, 500.0f)) == 2.0f);
  CHECK(of_one(-224.0f) == 0.5f);
  CHECK(of_one(0.0f) == 1.0f);
  CHECK(of_one(1e-44f) == 0x1p-126f);
  CHECK(of_one(std::numeric_limits<float>::max()) == 0x1p120f);
}

TEST_CASE("values and products stay within the stated errors") {
  std::mt19937 random(2);
  double worst_value = 0;
  double worst_product = 0;
  for (int round = 0; round < 200; ++round) {
    const row a = random_row(random, 8.0f);
    const row b = random_row(random, 8.0f);
    const auto code_a = encode_index_key<dims>(a);
    const auto code_b = encode_index_key<dims>(b);
    double bound = 0;
    double sum = 0;
    for (std::size_t i = 0; i < dims; ++i) {
      const double x = a[i];
      const double y = b[i];
      const auto most = [](double value, double scale) {
        return std::abs(value) >= scale * 0x1p-6 ? std::abs(value) / 17 : scale * 0x1p-10;
      };
      const double error_x = most(x, code_a.scale);
      const double error_y = most(y, code_b.scale);
      CHECK(std::abs(static_cast<double>(code_a[i]) - x) <= error_x);
      CHECK(std::abs(static_cast<double>(code_b[i]) - y) <= error_y);
      const double product = static_cast<double>(code_a[i]) * static_cast<double>(code_b[i]);
      if (error_x < std::abs(x) / 16 && error_y < std::abs(y) / 16) {
        CHECK(std::abs(product - x * y) <= 0x1p-3 * std::abs(x * y));
        worst_product = std::max(worst_product, std::abs(product - x * y) / std::abs(x * y));
        worst_value =
            std::max(worst_value, std::abs(static_cast<double>(code_a[i]) - x) / std::abs(x));
      }
      bound += error_x * std::abs(y) + error_y * std::abs(x) + error_x * error_y;
      sum += std::abs(product);
    }
    const double rounding = sum * dims * 0x1p-24;
    CHECK(std::abs(static_cast<double>(dot(code_a, code_b)) - exact_dot(a, b)) <= bound + rounding);
  }
  CHECK(worst_value > 0.055);   // the bounds are tight: 1/17 = 0.0588
  CHECK(worst_product > 0.10);  // and (18/17)^2 - 1 = 0.121
}

TEST_CASE("the rotation is the Hadamard matrix, orthonormal and its own inverse") {
  std::mt19937 random(3);
  const row x = random_row(random);
  row y = x;
  hadamard(y);
  double norm = std::sqrt(exact_dot(x, x));
  for (unsigned i = 0; i < dims; ++i) {
    double expected = 0;
    for (unsigned j = 0; j < dims; ++j) {
      expected += (std::popcount(i & j) % 2 == 0 ? 1.0 : -1.0) * static_cast<double>(x[j]);
    }
    CHECK(std::abs(static_cast<double>(y[i]) - expected / std::sqrt(128.0)) <= 1e-6 * norm);
  }
  hadamard(y);
  for (std::size_t i = 0; i < dims; ++i) {
    CHECK(std::abs(static_cast<double>(y[i] - x[i])) <= 1e-6 * norm);
  }
  float one = 3.0f;
  hadamard(std::span(&one, 1));
  CHECK(one == 3.0f);
}

TEST_CASE("dot products are the same with and without the rotation, to 1e-6 in fp32") {
  std::mt19937 random(4);
  for (int round = 0; round < 300; ++round) {
    const row a = random_row(random, 20.0f);
    const row b = random_row(random, 20.0f);
    row rotated_a = a;
    row rotated_b = b;
    hadamard(rotated_a);
    hadamard(rotated_b);
    const double norms = std::sqrt(exact_dot(a, a) * exact_dot(b, b));
    CHECK(std::abs(exact_dot(rotated_a, rotated_b) - exact_dot(a, b)) <= 1e-6 * norms);
  }
}

TEST_CASE("rotated keys and queries score as plain ones do, within the codes' errors") {
  std::mt19937 random(5);
  for (int round = 0; round < 100; ++round) {
    const row a = random_row(random);
    const row b = random_row(random);
    row rotated = a;
    hadamard(rotated);
    const auto code_a = encode_rotated_index_key<dims>(a);
    CHECK(code_a == encode_index_key<dims>(rotated));
    const double norms = std::sqrt(exact_dot(a, a) * exact_dot(b, b));
    // Each product may be off by 1/8; by Cauchy and Schwarz the sum of their magnitudes is at most
    // |a| |b|.
    CHECK(std::abs(static_cast<double>(dot(code_a, encode_rotated_index_key<dims>(b))) -
                   exact_dot(a, b)) <= norms / 8);
  }
}

namespace {

// Queries of three heads: 1, 2 and 3 times the first unit vector. The rotation gives each dim a
// quarter of that.
struct unit_queries {
  std::vector<float> rows = std::vector<float>(3 * 16);
  std::vector<float> weights{1, 2, -3};
  index_set heads = index_set::range(0, 1);  // the first and the third

  unit_queries() {
    heads.add(2);
    for (std::size_t h = 0; h < 3; ++h) {
      rows[h * 16] = static_cast<float>(h + 1);
    }
  }
};

// Three keys: -1, 0 and 1 in each dim. Means of two blocks: 2 and -1 times the first unit vector.
struct small_index {
  std::uint32_t tokens() const { return 3; }
  std::uint32_t blocks() const { return 2; }
  std::vector<float> key(std::uint32_t t) const {
    return std::vector<float>(16, static_cast<float>(t) - 1);
  }
  void mean(std::uint32_t block, std::span<double> to) const {
    std::ranges::fill(to, 0.0);
    to[0] = block == 0 ? 2 : -1;
  }
  void newest(std::span<double> to) const { mean(1, to); }
};

}  // namespace

TEST_CASE("queries of chosen heads, decoded, with their weights: the same each time") {
  const auto [rows, weights, heads] = unit_queries{};
  std::vector<float> expected(16, 0.25f);
  expected.resize(32, 0.75f);
  std::vector<float> queries, of_heads;
  for (int round = 0; round < 2; ++round) {
    decode_index_queries<16>({rows, weights}, heads, queries, of_heads);
    CHECK(queries == expected);
    CHECK(of_heads == std::vector<float>{1, -3});
  }
}

TEST_CASE("a token's score: the products with a key that are positive, by the heads' weights") {
  const auto [rows, weights, heads] = unit_queries{};
  std::vector<double> scores(3);
  score_index<16>({rows, weights}, heads, index_set::range(0, 3), small_index{}, std::span(scores));
  CHECK(scores == std::vector<double>{0, 0, 16 * (0.25 - 3 * 0.75)});
}

TEST_CASE("heads with the highest scores, by the means of blocks, the newest key or the norm") {
  const auto [rows, weights, heads] = unit_queries{};
  const index_query q{rows, weights};
  const auto chosen = [&](head_router router, std::uint32_t k, std::uint32_t against) {
    index_set set;
    CHECK(top_heads<16>(q, small_index{}, router, k, set) == against);
    std::vector<std::uint32_t> members;
    set.view().for_each([&](std::uint32_t h) { members.push_back(h); });
    return members;
  };
  using list = std::vector<std::uint32_t>;
  CHECK(chosen(head_router::block_means, 2, 2) == list{1, 2});  // 1, 4 and 9
  CHECK(chosen(head_router::query_norm, 1, 0) == list{2});      // the same
  CHECK(chosen(head_router::newest_key, 1, 1) == list{0});      // 0 each: the first
}

TEST_CASE("bad vectors are refused") {
  std::array<float, 6> six{};
  CHECK(message_of([&] { hadamard(six); }) == "hadamard: needs a power of two of dims, got 6");
  CHECK(message_of([&] { hadamard({}); }) == "hadamard: needs a power of two of dims, got 0");
  row x{};
  x[7] = std::nanf("");
  CHECK(message_of([&] { (void)encode_index_key<dims>(x); }).find("index key: dim 7 is ") == 0);
  x[7] = std::numeric_limits<float>::infinity();
  CHECK(message_of([&] { (void)encode_rotated_index_key<dims>(x); }).find("index key: dim ") == 0);
}

}  // namespace instinfer::test_index_codec
