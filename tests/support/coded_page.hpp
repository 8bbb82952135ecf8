#pragma once
// A page of a codec, encoded and decoded again, and values that try to break it.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "instinfer/codec/fp8.hpp"
#include "instinfer/codec/page_codec.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test {

inline constexpr double eps = 0x1p-24;  // of fp32

inline double as_double(float x) { return static_cast<double>(x); }

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

// Values that try to break a codec, beside normal ones: all equal, zero, denormal, of huge range,
// with one outlier.
inline std::vector<std::vector<float>> value_sets(std::size_t n, float largest) {
  std::mt19937 random(3);
  normal_distribution normal;
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

}  // namespace instinfer::test
