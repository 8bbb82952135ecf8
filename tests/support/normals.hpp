#pragma once
// Normally distributed numbers, and K, V and queries to fill a cache with where any values will do.

#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "instinfer/codec/element.hpp"

namespace instinfer {

// The numbers of libstdc++'s std::normal_distribution<float>, by the same polar method. That one
// computes two logarithms of a long double for each random number where the compiler does not fold
// them: with clang++, a third of the time of tests that draw a cache.
class normal_distribution {
 public:
  float operator()(std::mt19937& random) {
    if (std::exchange(saved_, false)) {
      return next_;
    }
    float x, y, square;
    do {
      x = 2 * unit(random) - 1;
      y = 2 * unit(random) - 1;
      square = x * x + y * y;
    } while (square > 1 || square == 0);
    const float times = std::sqrt(-2 * std::log(square) / square);
    next_ = x * times;
    saved_ = true;
    return y * times;
  }

 private:
  // In [0, 1): a number that rounds to 1 becomes the largest float below.
  static float unit(std::mt19937& random) {
    return std::fmin(static_cast<float>(random()) * 0x1p-32f, 1 - 0x1p-24f);
  }

  float next_ = 0;
  bool saved_ = false;
};

// [n] normally distributed.
inline std::vector<fp16> normals(std::mt19937& random, std::size_t n) {
  normal_distribution normal;
  std::vector<fp16> x(n);
  for (fp16& e : x) {
    e = from_float<fp16>(normal(random));
  }
  return x;
}

}  // namespace instinfer
