#pragma once
// What policies hold of the CUDA path's machine: descriptions, while the values stay on the device.

#include <cstdint>
#include <span>

#include "instinfer/core/logit_rule.hpp"

namespace instinfer::cuda {

struct machine_query {
  std::span<const float> values;  // [q_heads, dim]
  logit_rule logits;
};
struct machine_dims {
  std::uint32_t count = 0;
};
struct machine_scores {
  bool probabilities = false;
};
struct machine_tokens {
  bool listed = false;
  std::uint32_t n = 0;
  std::uint32_t count() const { return n; }
  bool empty() const { return n == 0; }
};

}  // namespace instinfer::cuda
