#pragma once
// The storage of index keys of DSA's lightning indexer (DeepSeek-V3.2).
// An optional Hadamard rotation, then fp8 (e4m3) codes with one power-of-two scale per vector.
// Scoring a token of 128 dims reads 132 bytes.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <span>
#include <string>

#include "instinfer/codec/fp8.hpp"
#include "instinfer/core/errors.hpp"

namespace instinfer::attention {

// Replaces x [dims] by H x, with H[i][j] = (-1)^(number of common one bits of i and j) /
// sqrt(dims). H is orthonormal and its own inverse, so dot products do not change. It spreads
// outliers over all dims. O(dims log dims). Throws bad_argument unless dims is a power of two.
inline void hadamard(std::span<float> x) {
  require(std::has_single_bit(x.size()), [&] {
    return "hadamard: needs a power of two of dims, got " + std::to_string(x.size());
  });
  for (std::size_t half = 1; half < x.size(); half *= 2) {
    for (std::size_t block = 0; block < x.size(); block += 2 * half) {
      for (std::size_t i = block; i < block + half; ++i) {
        const float a = x[i];
        const float b = x[i + half];
        x[i] = a + b;
        x[i + half] = a - b;
      }
    }
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(x.size()));
  for (float& value : x) {
    value *= scale;
  }
}

// The value of every code. In a scan of all keys, decoding by a table is twice as fast as by
// arithmetic.
inline constexpr std::array<float, 256> fp8_values = [] {
  std::array<float, 256> values{};
  for (std::uint32_t bits = 0; bits < values.size(); ++bits) {
    values[bits] = to_float(fp8{static_cast<std::uint8_t>(bits)});
  }
  return values;
}();

// One vector of Dims values: value i is scale * codes[i]. The relative error is at most 1/17 for
// values of at least 2^-6 of the scale, so at most 2^-3 for a product of two. For smaller values
// the error is at most 2^-10 of the scale.
template <int Dims>
struct index_key {
  static_assert(Dims > 0 && Dims % 4 == 0,
                "instinfer: index keys have a multiple of 4 dims, see summaries/index_codec.hpp");
  std::array<fp8, Dims> codes{};
  float scale = 1.0f;  // a power of two

  float operator[](std::size_t i) const { return scale * fp8_values[codes[i].bits]; }
  friend bool operator==(const index_key&, const index_key&) = default;
};
static_assert(sizeof(index_key<128>) == 128 + 4);

// The smallest power of two with |x| / scale <= 448 for all x, so that the codes can hold them. 1
// for zeros; never denormal.
inline float index_scale(std::span<const float> x) {
  float most = 0;
  for (const float value : x) {
    most = std::max(most, std::abs(value));
  }
  if (most == 0) {
    return 1.0f;
  }
  int exponent = 0;
  const double fraction = std::frexp(static_cast<double>(most) / 448.0, &exponent);  // [1/2, 1)
  return std::ldexp(1.0f, std::max(fraction > 0.5 ? exponent : exponent - 1, -126));
}

// Throws bad_argument for NaN or infinity.
template <int Dims>
index_key<Dims> encode_index_key(std::span<const float, Dims> x) {
  const auto bad = std::ranges::find_if_not(x, [](float value) { return is_finite(value); });
  require(bad == x.end(), [&] {
    return "index key: dim " + std::to_string(bad - x.begin()) + " is " + std::to_string(*bad) +
           ", must be finite";
  });
  index_key<Dims> key{.scale = index_scale(x)};
  std::ranges::transform(x, key.codes.begin(),
                         [&](float value) { return to_fp8(value / key.scale); });
  return key;
}

// Rotates first, as the indexer does with both queries and keys.
template <int Dims>
index_key<Dims> encode_rotated_index_key(std::span<const float, Dims> x) {
  std::array<float, Dims> rotated;
  std::ranges::copy(x, rotated.begin());
  hadamard(rotated);
  return encode_index_key<Dims>(rotated);
}

// a.b. Products of codes are exact in fp32; the sum is in dim order; the scales come last.
template <int Dims>
float dot(const index_key<Dims>& a, const index_key<Dims>& b) {
  float sum = 0;
  for (std::size_t i = 0; i < Dims; ++i) {
    sum += to_float(a.codes[i]) * to_float(b.codes[i]);
  }
  return sum * (a.scale * b.scale);
}

}  // namespace instinfer::attention
