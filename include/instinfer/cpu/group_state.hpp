#pragma once
// The softmax states of a query group with their outputs. Parts of a head's tokens are folded into
// such states, and the states are merged.

#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/core/softmax_state.hpp"

namespace instinfer::cpu {

class group_state {
 public:
  // The empty state of `group` heads.
  void reset(std::uint32_t group, std::size_t v_dim) {
    v_dim_ = v_dim;
    states_.assign(group, {});
    outputs_.assign(group * v_dim, 0.0f);
  }

  std::uint32_t group() const { return static_cast<std::uint32_t>(states_.size()); }
  softmax_state<float>& state(std::uint32_t h) { return states_[h]; }
  std::span<float> output(std::uint32_t h) {
    return std::span(outputs_).subspan(h * v_dim_, v_dim_);
  }

  // Raises the maximum of head h to at least `max`, and rescales its sums if the maximum changes.
  // Returns the maximum.
  float raise_max(std::uint32_t h, float max) {
    softmax_state<float>& s = states_[h];
    const float raised = std::max(s.max, max);
    const float keep = rescale_factor(s.max, raised);
    s.max = raised;
    if (keep < 1.0f) {
      s.sum *= keep;
      for (float& x : output(h)) {
        x *= keep;
      }
    }
    return raised;
  }

  void merge_head(std::uint32_t h, const softmax_state<float>& state, std::span<const float> o) {
    instinfer::merge<float>(states_[h], output(h), state, o);
  }
  // Merges all heads of another state into the heads from first_head on.
  void merge(const group_state& other, std::uint32_t first_head = 0) {
    for (std::uint32_t h = 0; h < other.group(); ++h) {
      merge_head(first_head + h, other.states_[h],
                 std::span(other.outputs_).subspan(h * v_dim_, v_dim_));
    }
  }

 private:
  std::size_t v_dim_ = 0;
  std::vector<softmax_state<float>> states_;  // [group]
  std::vector<float> outputs_;                // [group, v_dim]
};

}  // namespace instinfer::cpu
