#pragma once
// What a decode attention launch is given, and the workspace it needs.

#include <cstdint>

#include "instinfer/cuda/paged_stream.hpp"

namespace instinfer::cuda {

inline constexpr std::uint32_t largest_group =
    16;  // query heads that share a KV head: the M of mma.m16n8k16

// All pointers are device pointers. Query head h reads KV head h / group.
template <class E, class Out>
struct attend_arguments {
  const E* q = nullptr;  // [sequences, kv_heads * group, dim], 16-byte aligned
  Out* out = nullptr;    // [sequences, kv_heads * group, dim]
  float* lse_base_e =
      nullptr;  // [sequences, kv_heads * group], natural log of the sum of exp(logit); may be null
  paged_stream<E> k = {};
  paged_stream<E> v = {};

  const std::uint32_t* tokens = nullptr;  // [sequences]: one past the newest token
  const std::uint32_t* first = nullptr;   // [sequences]: the oldest live token; null means 0
  std::uint32_t sequences = 0;
  std::uint32_t kv_heads = 1;
  std::uint32_t group = 1;

  float scale = 0.0f;        // 0 means 1/sqrt(dim)
  float soft_cap = 0.0f;     // 0 means none
  std::uint32_t window = 0;  // newest tokens that are seen; 0 means all
  std::uint32_t sinks = 0;   // oldest live tokens seen beside the window

  // Sparse attention: only the listed tokens are folded. A list is ascending, one a sequence and KV head.
  const std::uint32_t* listed = nullptr;         // [sequences, kv_heads, list_stride]
  const std::uint32_t* listed_counts = nullptr;  // [sequences]
  std::int64_t list_stride = 0;

  std::uint32_t most_positions =
      0;  // of a sequence: what a table row or a list holds; bounds the workspace

  // SparF's correction: out = kept * out + (1 - kept) * mean of V.
  const float* kept = nullptr;    // [sequences, kv_heads * group]; null means none
  const float* mean_v = nullptr;  // [sequences, kv_heads, dim]
};

// Partial results of pieces, and the counters by which the last piece of an item knows that it is the last.
struct attend_workspace {
  float* partials =
      nullptr;  // [slots, part_floats]: outputs [group, dim], then maximum and sum of each head
  std::uint32_t* tickets = nullptr;  // [slots], all 0 between launches
  std::uint32_t* status =
      nullptr;  // bits of attend_status, set by kernels, cleared by whoever looks
  std::uint64_t slots = 0;

  // Rounded up to 16 bytes.
  static constexpr std::uint64_t part_floats(std::uint32_t group, std::uint32_t dim) {
    return (std::uint64_t{group} * (dim + 2) + 3) / 4 * 4;
  }
  constexpr float* part(std::uint64_t slot, std::uint32_t group, std::uint32_t dim) const {
    return partials + slot * part_floats(group, dim);
  }
};

// What a kernel met and worked around without touching memory it must not touch: the rows count as zeros.
enum attend_status : std::uint32_t {
  page_out_of_range = 1,  // a table entry is not below page_count
  token_beyond_table = 2  // a token's page is not below table_pages
};

}  // namespace instinfer::cuda
