#pragma once
// The contract of summaries with rows.
// A chunk is a page or a cluster of tokens. Its row is what queries are scored against.

#include <concepts>
#include <cstdint>
#include <span>

#include "instinfer/core/index_set.hpp"

namespace instinfer::attention {

// A state with one row per chunk. The members of chunk u come before those of chunk u + 1.
//   row_dim, row_bytes    elements of a row, and bytes that reading it takes
//   chunks()              number of chunks
//   first_chunk()         optional: chunks before it are gone, with all their members
//   row(u, scratch)       the row as fp32 [row_dim]; decoded into `scratch` [row_dim] if needed
//   stored_row(u)         optional: a pointer to the row as stored, for kernels that widen it
//   prepare(q, out)       the query [k_dim] in the form of rows: logit = scale * prepare(q).row
//   weight(u)             number of tokens that the chunk stands for
//   members(u)            its tokens (at a coarse level: its chunks of the finer level)
template <class S>
concept ChunkState =
    requires(const S& s, std::uint32_t chunk, std::span<float> scratch, std::span<const float> q) {
      { S::row_dim } -> std::convertible_to<std::size_t>;
      { S::row_bytes } -> std::convertible_to<std::size_t>;
      { s.chunks() } -> std::convertible_to<std::uint32_t>;
      { s.row(chunk, scratch) } -> std::convertible_to<std::span<const float>>;
      { S::prepare(q, scratch) };
      { s.weight(chunk) } -> std::convertible_to<std::uint32_t>;
      { s.members(chunk) } -> std::convertible_to<index_run>;
    };

template <class S>
std::uint32_t first_chunk_of(const S& table) {
  if constexpr (requires { table.first_chunk(); }) {
    return table.first_chunk();
  } else {
    return 0;
  }
}

// Chunks that can replace their members in the output.
//   value_mean(u)         mean of the members' values, [v_dim]
template <class S>
concept WeightedChunkState = ChunkState<S> && requires(const S& s, std::uint32_t chunk) {
  { s.value_mean(chunk) } -> std::convertible_to<std::span<const float>>;
};

}  // namespace instinfer::attention
