#pragma once
// The softmax states of a query group with their outputs. Parts of a head's tokens are folded into
// sums, and the sums are merged into the states.

#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/core/softmax_state.hpp"

namespace instinfer::cpu {

// Sums over n tokens are taken with weights 2^-weight_shift(n) * exp(logit - max). They add up to
// at most 1/2, so sums of weights times values stay finite for all finite values. A power of 2
// changes no bit of the quotient.
constexpr std::uint32_t weight_shift(std::size_t n) {
  return n == 0 ? 1 : static_cast<std::uint32_t>(std::bit_width(n - 1)) + 1;
}

// Sums of this many tokens are separate, then merged: one sum of 32K terms in fp32 would lose three
// more bits.
inline constexpr std::size_t rows_of_sum = 1024;

// One softmax state and one row of floats [v_dim] for each head of a group.
class group_rows {
 public:
  // The empty state of `group` heads.
  void reset(std::uint32_t group, std::size_t v_dim) {
    v_dim_ = v_dim;
    states_.assign(group, {});
    rows_.assign(group * v_dim, 0.0f);
  }

  std::uint32_t group() const { return static_cast<std::uint32_t>(states_.size()); }
  softmax_state<float>& state(std::uint32_t h) { return states_[h]; }
  const softmax_state<float>& state(std::uint32_t h) const { return states_[h]; }
  std::span<float> row(std::uint32_t h) { return std::span(rows_).subspan(h * v_dim_, v_dim_); }
  std::span<const float> row(std::uint32_t h) const {
    return std::span(rows_).subspan(h * v_dim_, v_dim_);
  }

 private:
  std::size_t v_dim_ = 0;
  std::vector<softmax_state<float>> states_;  // [group]
  std::vector<float> rows_;                   // [group, v_dim]
};

// The sums of one fold over n tokens: rows are sums of weights times values. The state's maximum is
// known before, and its sum has the same weights.
class group_sums : public group_rows {
 public:
  void reset(std::uint32_t group, std::size_t v_dim, std::size_t n) {
    group_rows::reset(group, v_dim);
    shift_ = weight_shift(n);
  }
  // Weights are 2^-shift() * exp(logit - max).
  std::uint32_t shift() const { return shift_; }

 private:
  std::uint32_t shift_ = 1;
};

// What is merged: rows are outputs, means of the values.
class group_state : public group_rows {
 public:
  // Merges the sums of one head.
  void merge_sums(std::uint32_t h, const softmax_state<float>& state, std::span<const float> sums,
                  std::uint32_t shift) {
    instinfer::merge_sums<float>(this->state(h), row(h), state, sums,
                                 std::ldexp(1.0f, -static_cast<int>(shift)));
  }
  // Merges all heads of `sums` into the heads from first_head on.
  void merge(const group_sums& sums, std::uint32_t first_head = 0) {
    for (std::uint32_t h = 0; h < sums.group(); ++h) {
      merge_sums(first_head + h, sums.state(h), sums.row(h), sums.shift());
    }
  }
  void merge(const group_state& other, std::uint32_t first_head = 0) {
    for (std::uint32_t h = 0; h < other.group(); ++h) {
      instinfer::merge<float>(state(first_head + h), row(first_head + h), other.state(h),
                              other.row(h));
    }
  }
};

}  // namespace instinfer::cpu
