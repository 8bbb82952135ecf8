#pragma once
// Attention weights of tokens and chunks whose keys are not there, for methods that look at them:
// thresholds, and summaries that learn.

#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/core/drawn_numbers.hpp"
#include "instinfer/core/index_set.hpp"
#include "instinfer/core/math.hpp"
#include "instinfer/core/scratch.hpp"

namespace instinfer::flash {

// Standard deviation of the logits of a query. Measured on the SmolLM2 trace in examples/traces:
// the median over 54 queries and heads, without 4 sinks. Normal logits of this deviation give 13 %
// of the tokens at least half of the uniform weight; on the trace 10 % have it.
inline constexpr double drawn_logit_deviation = 2.74;

// A candidate's logit depends only on the head and on the candidate's number. So a heavy token
// stays heavy from query to query.
class drawn_weights {
 public:
  void begin(std::uint64_t head) {
    head_ = head;
    newest_ = 0;
    filled_ = 0;
  }
  std::uint32_t next_id() { return ++newest_; }

  // The weights of the score array `id`: exp(logit) / (total * the mean of exp(logit)), so that
  // weights of `total` candidates add up to 1 on average. Valid until those of another array are
  // asked for.
  std::span<const float> of(std::uint32_t id, index_view candidates, double total) {
    if (filled_ != id) {
      filled_ = id;
      resize_scratch(weights_, candidates.count());
      constexpr double s = drawn_logit_deviation;
      std::size_t at = 0;
      candidates.for_each([&](std::uint32_t c) {
        drawn_numbers draw(mixed_bits(head_ << 32 | c));
        weights_[at++] = static_cast<float>(math::exp(s * draw.normal() - s * s / 2) / total);
      });
    }
    return weights_;
  }

 private:
  std::uint64_t head_ = 0;
  std::uint32_t newest_ = 0;
  std::uint32_t filled_ = 0;
  std::vector<float> weights_;
};

}  // namespace instinfer::flash
