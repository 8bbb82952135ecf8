#pragma once
// Summaries: what the cache keeps of a KV head in fast memory beside the pages. A policy lists those it needs; the
// engine maintains them on append and reclaim.
//
//   mean_value   running mean of V                 (SparQ, SparF: v-bar of InstInfer Alg. 1)

#include <array>
#include <concepts>
#include <cstdint>
#include <span>
#include <tuple>

#include "instinfer/core/shape.hpp"

namespace instinfer::attention {

// The summary S of one KV head under a format: told of every token that enters or leaves the cache, in order. Values are
// those that are stored. Where sealing a page rounds them (int8 and other codecs), the format is fp32, and a summary that
// subtracts on forget what it added must also have the following, both noexcept; others may:
//   s.restate_k(before, after)   one token's K [k_dim] was `before` and is `after` from now on
//   s.restate_v(before, after)   the same of V [v_dim]
template <class S>
concept Summary =
    std::semiregular<typename S::template state<kv_format<fp16, 128>>> &&
    requires(typename S::template state<kv_format<fp16, 128>> s, std::span<const fp16> row) {
      { s.append(row, row) } noexcept;  // k [k_dim], v [v_dim]
      { s.forget(row, row) } noexcept;  // the same values, when the token is reclaimed
    };

template <class E, class State>
void restate_k(State& state, std::span<const E> before, std::span<const E> after) noexcept {
  if constexpr (requires { state.restate_k(before, after); }) {
    state.restate_k(before, after);
  }
}
template <class E, class State>
void restate_v(State& state, std::span<const E> before, std::span<const E> after) noexcept {
  if constexpr (requires { state.restate_v(before, after); }) {
    state.restate_v(before, after);
  }
}

template <class... S>
struct summary_list {
  static_assert(
      (Summary<S> && ...),
      "instinfer: a summary lacks append(k, v) or forget(k, v), both noexcept, see attention/summaries.hpp");
  template <class Format>
  using states = std::tuple<typename S::template state<typename Format::decoded>...>;
};

// Whether the states of a head, a std::tuple, hold a State.
template <class State, class States>
inline constexpr bool keeps = false;
template <class State, class... S>
inline constexpr bool keeps<State, std::tuple<S...>> = (std::same_as<State, S> || ...);

// Mean of all live V rows. Kept in double as sum and count, so that rows can leave again; the error stays below 1e-9 of the
// largest value ever held, after 1M appends and forgets.
struct mean_value {
  template <class Format>
  class state {
   public:
    using element = typename Format::element;

    void append(std::span<const element> /*k*/, std::span<const element> v) noexcept {
      add(v, 1.0);
    }
    void forget(std::span<const element> /*k*/, std::span<const element> v) noexcept {
      add(v, -1.0);
    }
    void restate_v(std::span<const element> before, std::span<const element> after) noexcept {
      for (std::size_t i = 0; i < sum_.size(); ++i) {
        sum_[i] +=
            static_cast<double>(to_float(after[i])) - static_cast<double>(to_float(before[i]));
      }
    }

    // Mean of dim i; 0 for the empty cache.
    double operator[](std::size_t i) const {
      return count_ == 0 ? 0.0 : sum_[i] / static_cast<double>(count_);
    }

   private:
    void add(std::span<const element> v, double sign) {
      count_ += sign > 0 ? 1 : -1;
      for (std::size_t i = 0; i < sum_.size(); ++i) {
        sum_[i] = count_ == 0 ? 0.0 : sum_[i] + sign * static_cast<double>(to_float(v[i]));
      }
    }
    std::array<double, static_cast<std::size_t>(Format::v_dim)> sum_{};
    std::int64_t count_ = 0;
  };
};

}  // namespace instinfer::attention
