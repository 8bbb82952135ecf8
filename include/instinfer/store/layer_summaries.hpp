#pragma once
// The summaries of one layer's heads.

#include <cstdint>
#include <tuple>
#include <vector>

#include "instinfer/summaries/concepts.hpp"

namespace instinfer::store {

// States is a std::tuple, one state for each summary of the policy. Attention feeds back into them (observed weights, a block
// cache), and does not change the cache by that: so they may change where the cache may not.
template <class States>
class layer_summaries {
 public:
  explicit layer_summaries(std::uint32_t kv_heads) : heads_(kv_heads) {}

  States& of(std::uint32_t h) const { return heads_[h]; }

  template <class F>
  static void for_each(States& states, F&& f) {
    std::apply([&](auto&... state) { (f(state), ...); }, states);
  }
  template <class F>
  void for_each(F&& f) const {
    for (States& states : heads_) {
      for_each(states, f);
    }
  }

  // Takes the memory that `count` appends need.
  void reserve(std::uint32_t count) {
    for_each([&](auto& state) { attention::reserve_summary(state, count); });
  }

  // Whether all can do without the tokens before `new_first`.
  bool may_forget(std::uint32_t new_first) const {
    bool may = true;
    for_each([&](const auto& state) {
      if constexpr (requires { state.may_forget(new_first); }) {
        may = may && state.may_forget(new_first);
      }
    });
    return may;
  }

  // Fast memory that they take.
  std::uint64_t bytes() const {
    std::uint64_t bytes = 0;
    for_each([&](const auto& state) { bytes += attention::summary_bytes(state); });
    return bytes;
  }

 private:
  mutable std::vector<States> heads_;  // [kv_heads]
};

}  // namespace instinfer::store
