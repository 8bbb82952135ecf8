#pragma once
// How n drives share attention: KV heads first, as in InstInfer §IV-D; if there are more drives
// than heads, sequences too.

#include <algorithm>
#include <cstdint>
#include <string>

#include "instinfer/core/shape.hpp"

namespace instinfer::system {

// The split, and the share of the busiest drive.
struct drive_split {
  int head_parts = 1;
  std::int64_t sequence_parts = 1;
  int kv_heads = 1;            // of the busiest drive
  std::int64_t sequences = 1;  // of the busiest drive

  // Number of drives with work.
  std::int64_t drives_used() const { return head_parts * sequence_parts; }
};

// Throws bad_argument if a count is not positive.
inline drive_split split_over(int drives, const model_shape& shape, std::int64_t batch) {
  shape.validate();
  require(drives > 0 && batch > 0, [&] {
    return "split_over: drives and batch must be positive, got " + std::to_string(drives) +
           " and " + std::to_string(batch);
  });
  drive_split split;
  split.kv_heads = (shape.kv_heads + drives - 1) / drives;
  split.head_parts = (shape.kv_heads + split.kv_heads - 1) / split.kv_heads;
  split.sequence_parts = std::clamp<std::int64_t>(drives / split.head_parts, 1, batch);
  split.sequences = (batch + split.sequence_parts - 1) / split.sequence_parts;
  return split;
}

}  // namespace instinfer::system
