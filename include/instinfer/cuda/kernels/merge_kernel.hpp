#pragma once
// Merges attention results over disjoint sets of tokens by their log-sum-exp. They may come from
// several launches, devices or drives.

#include <cstdint>
#include <limits>

#include "instinfer/codec/element.hpp"
#include "instinfer/cuda/kernels/tile_shape.hpp"
#include "instinfer/cuda/kernels/value_unit.hpp"

namespace instinfer::cuda {

// All pointers are device pointers. Rows are (sequence, query head) pairs. The parts may come in
// any order.
template <class Part, class Out>
struct merge_arguments {
  const Part* parts = nullptr;        // [parts, rows, dim], normalised outputs
  const float* lse_base_e = nullptr;  // [parts, rows]; -inf for a part without tokens
  Out* out = nullptr;                 // [rows, dim]
  float* out_lse_base_e = nullptr;    // [rows]; may be null
  std::uint32_t count = 0;            // parts
  std::uint32_t rows = 0;
  std::uint32_t dim = 0;
};

// out = sum over j of exp(lse_j - lse) out_j, with lse = log of the sum of exp(lse_j). Empty parts
// count nothing. If all are empty, the result is zeros and -inf. One warp works on one row.
template <class Lane, class Part, class Out>
constexpr void merge_rows(Lane& lane, const merge_arguments<Part, Out>& a) {
  const std::uint32_t warps = lane.blocks() * (lane.threads() / 32);
  const std::uint32_t lane_id = lane.thread() % 32;
  for (std::uint32_t row = lane.block() * (lane.threads() / 32) + lane.thread() / 32; row < a.rows;
       row += warps) {
    float max = -std::numeric_limits<float>::infinity();
    for (std::uint32_t j = 0; j < a.count; ++j) {
      const float lse = a.lse_base_e[std::uint64_t{j} * a.rows + row];
      max = lse > max ? lse : max;
    }
    const bool empty = !(max > -std::numeric_limits<float>::infinity());
    float sum = 0.0f;
    for (std::uint32_t j = 0; j < a.count && !empty; ++j) {
      sum += lane.exp2((a.lse_base_e[std::uint64_t{j} * a.rows + row] - max) * log2_e);
    }
    const float inverse = empty ? 0.0f : lane.reciprocal(sum);
    for (std::uint32_t i = lane_id; i < a.dim; i += 32) {
      float out = 0.0f;  // a mean at any time: it stays finite
      for (std::uint32_t j = 0; j < a.count && !empty; ++j) {
        const float weight =
            lane.exp2((a.lse_base_e[std::uint64_t{j} * a.rows + row] - max) * log2_e) * inverse;
        // What an empty part holds does not count, not even NaN.
        out += weight > 0.0f
                   ? weight * to_float(a.parts[(std::uint64_t{j} * a.rows + row) * a.dim + i])
                   : 0.0f;
      }
      a.out[std::uint64_t{row} * a.dim + i] = lane.template narrow<Out>(finite_value<Part>(out));
    }
    if (lane_id == 0 && a.out_lse_base_e != nullptr) {
      a.out_lse_base_e[row] =
          empty ? -std::numeric_limits<float>::infinity() : max + lane.log2(sum) * ln_2;
    }
  }
}

}  // namespace instinfer::cuda
