#pragma once
// Merges attention results over disjoint tokens by their log-sum-exp: a context may be split over
// sequences, engines, drives or machines.

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <string>

#include "instinfer/codec/element.hpp"
#include "instinfer/core/errors.hpp"
#include "instinfer/core/softmax_state.hpp"

namespace instinfer {

// Merges (other, other_log_sum_exp) into (out, log_sum_exp), as attend gives them: outputs [rows,
// v_dim] and natural logarithms [rows], where rows are query heads, or queries times heads. A part
// with -inf is empty and changes nothing, whatever its output holds; if both are empty, the row of
// `out` stays. Outputs of finite values stay finite. The order of merges changes a result by
// rounding only. Throws bad_argument if the lengths do not fit, or if a logarithm is NaN or +inf;
// then nothing has changed.
inline void merge_attention(std::span<float> out, std::span<float> log_sum_exp,
                            std::span<const float> other,
                            std::span<const float> other_log_sum_exp) {
  constexpr float lowest = -std::numeric_limits<float>::infinity();
  const std::size_t rows = log_sum_exp.size();
  require(other_log_sum_exp.size() == rows && other.size() == out.size() &&
              (rows == 0 ? out.empty() : out.size() % rows == 0),
          [&] {
            return "merge_attention: both parts must be outputs [rows, v_dim] with log_sum_exp "
                   "[rows], got " +
                   std::to_string(out.size()) + " with " + std::to_string(rows) + " and " +
                   std::to_string(other.size()) + " with " +
                   std::to_string(other_log_sum_exp.size()) + " values";
          });
  for (std::size_t r = 0; r < rows; ++r) {
    for (const float x : {log_sum_exp[r], other_log_sum_exp[r]}) {
      require(is_finite(x) || x <= lowest, [&] {
        return "merge_attention: log_sum_exp must be finite or -inf, is " + std::to_string(x) +
               " in row " + std::to_string(r);
      });
    }
  }
  for (std::size_t r = 0; r < rows; ++r) {
    if (other_log_sum_exp[r] <= lowest) {
      continue;
    }
    const std::size_t v_dim = out.size() / rows;
    const std::span<float> to = out.subspan(r * v_dim, v_dim);
    const std::span<const float> from = other.subspan(r * v_dim, v_dim);
    if (log_sum_exp[r] <= lowest) {
      std::copy(from.begin(), from.end(), to.begin());
      log_sum_exp[r] = other_log_sum_exp[r];
      continue;
    }
    softmax_state<float> state{log_sum_exp[r], 1.0f};
    merge<float>(state, to, {other_log_sum_exp[r], 1.0f}, from);
    log_sum_exp[r] = state.log_sum_exp();
  }
}

}  // namespace instinfer
