#pragma once
// Rotary position embedding (Su et al., 2021), by which methods that renumber positions rotate
// queries.

#include <cstdint>
#include <span>

#include "instinfer/core/math.hpp"

namespace instinfer::attention {

// Rotates pair i of a head's first `dims` dims by position * base^(-2i / dims). The default is no
// rotation.
struct rope {
  double base = 0.0;       // 0: no rotation; 10000 for most models
  std::uint32_t dims = 0;  // 0: the whole head
  // Pairs are (2i, 2i + 1); otherwise (i, i + dims / 2), as in Llama's Hugging Face weights.
  bool interleaved = false;

  constexpr bool present() const { return base > 0.0; }

  // Rotates x [head_dim] by this number of positions, in fp64.
  void rotate(std::span<float> x, std::int64_t positions) const {
    const std::size_t n = dims == 0 ? x.size() : dims;
    for (std::size_t i = 0; i < n / 2; ++i) {
      const double angle = static_cast<double>(positions) *
                           math::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(n));
      float& a = x[interleaved ? 2 * i : i];
      float& b = x[interleaved ? 2 * i + 1 : i + n / 2];
      const double x0 = static_cast<double>(a);
      const double x1 = static_cast<double>(b);
      a = static_cast<float>(x0 * math::cos(angle) - x1 * math::sin(angle));
      b = static_cast<float>(x0 * math::sin(angle) + x1 * math::cos(angle));
    }
  }
};

}  // namespace instinfer::attention
