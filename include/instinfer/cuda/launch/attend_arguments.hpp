#pragma once
// The arguments of a decode attention launch, and the workspace that it needs.

#include <cstdint>

#include "instinfer/cuda/kernels/paged_stream.hpp"

namespace instinfer::cuda {

// The most query heads that may share a KV head: the M of mma.m16n8k16.
inline constexpr std::uint32_t largest_group = 16;
// The most that parts of an item times group may be where they are merged; see tile_shape.
inline constexpr std::uint64_t most_part_weights = 8192;

// Query head h reads KV head h / group.
struct attend_sizes {
  std::uint32_t sequences = 0;
  std::uint32_t kv_heads = 1;
  std::uint32_t group = 1;
  std::uint32_t most_positions = 0;  // of a sequence: bounds the workspace of a fixed split
};

// All pointers are device pointers. Pages hold E, or 8-bit codes (cuda/kernels/page_codes.hpp).
template <class E, class Out, class Code = E>
struct attend_arguments {
  const E* q = nullptr;  // [sequences, kv_heads * group, dim], 16-byte aligned
  Out* out = nullptr;    // [sequences, kv_heads * group, dim]
  // [sequences, kv_heads * group]: natural log of the sum of exp(logit), before SparF's blend; may
  // be null.
  float* lse_base_e = nullptr;
  paged_stream<Code> k = {};
  paged_stream<Code> v = {};

  const std::uint32_t* tokens = nullptr;  // [sequences]: one past the newest token
  const std::uint32_t* first = nullptr;   // [sequences]: the oldest live token; null means 0
  attend_sizes sizes = {};

  float scale = 0.0f;        // > 0, as logit_rule::scale_for gives it
  float soft_cap = 0.0f;     // 0 means none
  std::uint32_t window = 0;  // newest tokens that are seen; 0 means all
  std::uint32_t sinks = 0;   // oldest live tokens seen beside the window

  // Sparse attention folds only the listed tokens, each once. There is one list for each sequence
  // and KV head.
  const std::uint32_t* listed = nullptr;         // [sequences, kv_heads, list_stride]
  const std::uint32_t* listed_counts = nullptr;  // [sequences]
  std::int64_t list_stride = 0;

  // SparF's correction: out = kept * out + (1 - kept) * mean of V. Null means none.
  const float* kept = nullptr;    // [sequences, kv_heads * group]
  const float* mean_v = nullptr;  // [sequences, kv_heads, dim]
};

// Partial results of pieces, and counters that tell the last piece of an item that it is the last.
// All zeros at first. Every launch leaves the counters at zero.
struct attend_workspace {
  // Bits of attend_status. Kernels set them, and whoever reads them clears them.
  std::uint32_t* status = nullptr;
  std::uint32_t* tickets = nullptr;  // [slots]
  // [slots, part_floats]: outputs [group, dim], then max and sum of each head
  float* partials = nullptr;

  // Floats of one slot, rounded up to 16 bytes.
  static constexpr std::uint64_t part_floats(std::uint32_t group, std::uint32_t dim) {
    return (std::uint64_t{group} * (dim + 2) + 3) / 4 * 4;
  }
  constexpr float* part(std::uint64_t slot, std::uint32_t group, std::uint32_t dim) const {
    return partials + slot * part_floats(group, dim);
  }

  // Balanced rule: two slots a CTA, whatever the batch. Fixed rule: one slot for each piece that
  // there can be.
  static constexpr std::uint64_t slots(const attend_sizes& s, const partition_rule& rule,
                                       std::uint32_t ctas) {
    return rule.fixed ? rule.cost(s.most_positions) * s.sequences * s.kv_heads
                      : std::uint64_t{2} * ctas;
  }
  static constexpr std::uint64_t bytes(const attend_sizes& s, const partition_rule& rule,
                                       std::uint32_t ctas, std::uint32_t dim) {
    const std::uint64_t n = slots(s, rule, ctas);
    return header_bytes(n) + n * part_floats(s.group, dim) * sizeof(float);
  }
  // Lays the workspace out in `memory`, which is 16-byte aligned and has bytes(...) bytes.
  static attend_workspace in(void* memory, const attend_sizes& s, const partition_rule& rule,
                             std::uint32_t ctas) {
    auto* words = static_cast<std::uint32_t*>(memory);
    return {words, words + 4,
            reinterpret_cast<float*>(words + header_bytes(slots(s, rule, ctas)) / 4)};
  }

 private:
  static constexpr std::uint64_t header_bytes(std::uint64_t slots) {
    return 16 + (slots * sizeof(std::uint32_t) + 15) / 16 * 16;
  }
};

// Errors that a kernel found in tables and lengths. It touches no memory that it must not touch;
// the rows in question count as zeros.
enum attend_status : std::uint32_t {
  page_out_of_range = 1,  // a table entry is not below page_count
  // A token's page is not below table_pages, or there are more than most_positions.
  token_beyond_table = 2,
};

}  // namespace instinfer::cuda
