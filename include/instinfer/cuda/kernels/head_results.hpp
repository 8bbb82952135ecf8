#pragma once
// Writes the results of attention: the normalised output, SparF's blend with the mean of V, and the
// log-sum-exp.

#include <limits>

#include "instinfer/cuda/kernels/tile_shape.hpp"
#include "instinfer/cuda/kernels/value_unit.hpp"

namespace instinfer::cuda {

template <class Lane, class E, class Out, std::uint32_t Dim, class Code>
class head_results {
 public:
  constexpr head_results(Lane& lane, const attend_arguments<E, Out, Code>& a)
      : lane_{lane}, a_{a} {}

  // Writes the results of an item without tokens. All threads of the CTA call it.
  constexpr void empty(std::uint32_t sequence, std::uint32_t head) {
    for (std::uint32_t i = lane_.thread(); i < a_.sizes.group * Dim; i += cta_threads) {
      whole(sequence, head, i / Dim, i % Dim, -std::numeric_limits<float>::infinity(), 0.0f, 0.0f,
            1.0f);
    }
  }

  constexpr void whole(std::uint32_t sequence, std::uint32_t head, std::uint32_t row,
                       std::uint32_t dim, float max, float sum, float out, float unit) {
    output(sequence, head, row, dim, sum, out, unit);
    if (dim == 0) {
      lse(sequence, head, row, max, sum);
    }
  }

  // Writes the normalised output of one dim; zero where nothing was folded. `unit`: see value_unit.
  constexpr void output(std::uint32_t sequence, std::uint32_t head, std::uint32_t row,
                        std::uint32_t dim, float sum, float out, float unit) {
    const std::int64_t item = std::int64_t{sequence} * a_.sizes.kv_heads + head;
    const std::int64_t q_head = item * a_.sizes.group + row;
    float value = sum > 0.0f ? out * lane_.reciprocal(sum) * unit : 0.0f;
    if (a_.kept != nullptr) {
      const float kept = a_.kept[q_head];
      value = kept * value + (1.0f - kept) * a_.mean_v[item * Dim + dim];
    }
    a_.out[q_head * Dim + dim] = lane_.template narrow<Out>(finite_value<Code>(value));
  }

  // Writes the log-sum-exp; -inf where nothing was folded.
  constexpr void lse(std::uint32_t sequence, std::uint32_t head, std::uint32_t row, float max,
                     float sum) {
    if (a_.lse_base_e != nullptr) {
      a_.lse_base_e[(std::int64_t{sequence} * a_.sizes.kv_heads + head) * a_.sizes.group + row] =
          sum > 0.0f ? (max + lane_.log2(sum)) * ln_2 : -std::numeric_limits<float>::infinity();
    }
  }

 private:
  Lane& lane_;
  const attend_arguments<E, Out, Code>& a_;
};

}  // namespace instinfer::cuda
