#pragma once
// The operands of the CUDA path's machine: descriptions, while the values stay on the device. A
// query is the query_group of all paths (attention/query_group.hpp), with the query heads of all KV
// heads.

#include <cstdint>

namespace instinfer::cuda {

struct machine_dims {
  std::uint32_t count = 0;
};
struct machine_scores {
  bool probabilities = false;
};
struct machine_tokens {
  bool listed = false;  // by the device; otherwise all visible tokens
  std::uint32_t n = 0;
  std::uint32_t count() const { return n; }
  bool empty() const { return n == 0; }
};

}  // namespace instinfer::cuda
