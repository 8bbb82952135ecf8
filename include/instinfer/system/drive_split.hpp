#pragma once
// How n drives share attention, as a model of time needs it: the share of the busiest drive.

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "instinfer/cluster/splits.hpp"
#include "instinfer/core/shape.hpp"

namespace instinfer::system {

struct drive_split {
  int head_parts = 1;
  std::int64_t sequence_parts = 1;
  int token_parts = 1;         // drives that share the tokens of a head
  int kv_heads = 1;            // of the busiest drive
  std::int64_t sequences = 1;  // of the busiest drive
  std::uint32_t token_block = 1;

  // Number of drives with work.
  std::int64_t drives_used() const { return head_parts * sequence_parts * token_parts; }
  // Of a context, on the busiest drive.
  std::uint64_t tokens_of(std::uint64_t context) const {
    return cluster::by_tokens{token_block}.tokens_of(context, 0, token_parts);
  }
  // Results for each query head of a sequence, each from one drive.
  int results() const { return head_parts * token_parts; }
};

inline void check_counts(const char* who, int drives, const model_shape& shape,
                         std::int64_t batch) {
  shape.validate();
  require(drives > 0 && batch > 0, [&] {
    return std::string(who) + ": drives and batch must be positive, got " + std::to_string(drives) +
           " and " + std::to_string(batch);
  });
}

// KV heads first, as in InstInfer §IV-D; if there are more drives than heads, sequences too. This
// is cluster::by_heads_and_sequences on as many of the drives as fit. Throws bad_argument if a
// count is not positive.
inline drive_split split_over(int drives, const model_shape& shape, std::int64_t batch) {
  check_counts("split_over", drives, shape, batch);
  drive_split split;
  split.kv_heads = (shape.kv_heads + drives - 1) / drives;
  split.head_parts = (shape.kv_heads + split.kv_heads - 1) / split.kv_heads;
  split.sequence_parts = std::clamp<std::int64_t>(drives / split.head_parts, 1, batch);
  split.sequences = (batch + split.sequence_parts - 1) / split.sequence_parts;
  return split;
}

// As the splits of a running cluster place heads, sequences and tokens. Throws bad_argument if the
// drives cannot share the model.
inline drive_split split_of(const cluster::by_heads& split, int drives, const model_shape& shape,
                            std::int64_t batch) {
  check_counts("split_of", drives, shape, batch);
  split.validate(shape, drives);
  return {
      .head_parts = drives, .kv_heads = (shape.kv_heads + drives - 1) / drives, .sequences = batch};
}
inline drive_split split_of(const cluster::by_heads_and_sequences& split, int drives,
                            const model_shape& shape, std::int64_t batch) {
  split.validate(shape, drives);
  drive_split parts = split_of(cluster::by_heads{}, split.head_groups, shape, batch);
  parts.sequence_parts = std::min<std::int64_t>(drives / split.head_groups, batch);
  parts.sequences = (batch + parts.sequence_parts - 1) / parts.sequence_parts;
  return parts;
}
inline drive_split split_of(const cluster::by_sequences&, int drives, const model_shape& shape,
                            std::int64_t batch) {
  return split_of(cluster::by_heads_and_sequences{1}, drives, shape, batch);
}
inline drive_split split_of(const cluster::by_heads_and_tokens& split, int drives,
                            const model_shape& shape, std::int64_t batch) {
  split.validate(shape, drives);
  drive_split parts = split_of(cluster::by_heads{}, split.head_groups, shape, batch);
  parts.token_parts = drives / split.head_groups;
  parts.token_block = split.block;
  return parts;
}
inline drive_split split_of(const cluster::by_tokens& split, int drives, const model_shape& shape,
                            std::int64_t batch) {
  return split_of(cluster::by_heads_and_tokens{1, split.block}, drives, shape, batch);
}

}  // namespace instinfer::system
