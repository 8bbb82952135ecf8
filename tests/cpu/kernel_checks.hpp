#pragma once
// What the tests of single kernels share: guarded arrays, random rows, and bounds of rounding
// errors.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <span>
#include <vector>

#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/codec/scaled_pages.hpp"

namespace instinfer::test {

inline constexpr double eps = 0x1p-24;  // half a unit in the last place of fp32, relative
inline constexpr float inf = std::numeric_limits<float>::infinity();
inline constexpr float untouched = 12345.5f;

// n floats `offset` floats behind a vector's alignment, between guards.
class guarded {
 public:
  guarded(std::size_t n, std::size_t offset)
      : floats_(n + 96, untouched), first_{32 + offset}, n_{n} {
    const auto address = reinterpret_cast<std::uintptr_t>(floats_.data());
    first_ += (64 - address % 64) / sizeof(float) % 16;
  }
  float* data() { return floats_.data() + first_; }
  std::span<float> span() { return {data(), n_}; }
  bool guards_hold() const {
    for (std::size_t i = 0; i < floats_.size(); ++i) {
      if ((i < first_ || i >= first_ + n_) && floats_[i] != untouched) {
        return false;
      }
    }
    return true;
  }

 private:
  std::vector<float> floats_;
  std::size_t first_;
  std::size_t n_;
};

inline void fill(std::span<float> x, std::mt19937& random, float from, float to) {
  for (float& v : x) {
    v = std::uniform_real_distribution<float>{from, to}(random);
  }
}

inline double as_double(float x) { return static_cast<double>(x); }

// |a - b| in units of b's last place in fp32, denormal ones included.
inline double ulps(float a, double b) {
  const float nearest = static_cast<float>(b);
  const float up = std::nextafter(nearest, inf) - nearest;
  return std::abs(as_double(a) - b) / as_double(up);
}

template <class Packed>
Packed random_packed(std::mt19937& random) {
  if constexpr (Element<Packed>) {
    return from_float<Packed>(std::uniform_real_distribution<float>{-2.0f, 2.0f}(random));
  } else if constexpr (std::is_same_v<Packed, fp8>) {
    return {static_cast<std::uint8_t>(random() % 127 | (random() & 128))};  // 127 is NaN
  } else if constexpr (std::is_same_v<Packed, int4_group>) {
    int4_group g;
    std::ranges::generate(g.codes, [&] { return static_cast<std::uint8_t>(random()); });
    g.step = random_packed<fp16>(random);
    g.low = random_packed<fp16>(random);
    return g;
  } else {
    return static_cast<Packed>(random());
  }
}

// Rows of packed at any address that their type allows, also the odd ones that no vector is aligned
// to.
template <class Packed>
class rows_of {
 public:
  rows_of(std::size_t rows, std::size_t dims, std::mt19937& random)
      : dims_{dims}, packed_(rows * (dims / packed_elements<Packed> + 1) + 1) {
    const std::size_t in_row = dims / packed_elements<Packed>;
    for (std::size_t r = 0; r < rows; ++r) {
      Packed* row = packed_.data() + 1 + r * (in_row + 1);  // a row of odd length after each other
      std::generate_n(row, in_row, [&] { return random_packed<Packed>(random); });
      pointers_.push_back(row);
    }
  }
  const Packed* const* data() const { return pointers_.data(); }
  // [rows, dims] as double.
  std::vector<double> values() const {
    std::vector<double> all;
    for (const Packed* row : pointers_) {
      for (std::size_t i = 0; i < dims_; ++i) {
        all.push_back(as_double(to_float(row[i])));
      }
    }
    return all;
  }

 private:
  std::size_t dims_;
  std::vector<Packed> packed_;
  std::vector<const Packed*> pointers_;
};

// The bound for a sum of n products in any order, with or without fused multiply-adds: n eps times
// the sum of their magnitudes (Higham, Accuracy and Stability of Numerical Algorithms, §3.1), to
// first order; the factor covers the rest.
inline double sum_bound(std::size_t n, double magnitude) {
  return 1.01 * static_cast<double>(n) * eps * magnitude;
}

}  // namespace instinfer::test
