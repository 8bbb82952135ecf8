#pragma once
// K, V and queries to fill a cache with, where any values will do.

#include <random>
#include <vector>

#include "instinfer/codec/element.hpp"

namespace instinfer {

// [n] normally distributed.
inline std::vector<fp16> normals(std::mt19937& random, std::size_t n) {
  std::normal_distribution<float> normal;
  std::vector<fp16> x(n);
  for (fp16& e : x) {
    e = from_float<fp16>(normal(random));
  }
  return x;
}

}  // namespace instinfer
