#pragma once
// Summaries: what the cache keeps of a KV head in fast memory beside the pages. A policy lists those it needs; the
// engine maintains them on append and reclaim.
//
//   mean_value          running mean of V (SparQ, SparF: v-bar of InstInfer Alg. 1)            summaries/mean_value.hpp
//   page_bounds<16>     smallest and largest key of a group of tokens (Quest)                  summaries/page_bounds.hpp
//   cluster_index       clusters of keys, with centroids and value sums (Squeezed, RetroInfer) summaries/cluster_index.hpp
//   cluster_tree        clusters of those centroids (Squeezed, two levels)                     summaries/cluster_index.hpp
//   wave_buffer         a block cache of pages (RetroInfer)                                    summaries/wave_buffer.hpp
//   heavy_hitters       summed attention weights of a bounded set of tokens (H2O)              summaries/heavy_hitters.hpp
//   moving_weights      moving averages of attention weights, and what they chose (HGCA)       summaries/moving_weights.hpp
//   index_keys<128>     keys of a trained indexer, with their block means (DSA, MISA)          summaries/index_keys.hpp

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <tuple>

#include "instinfer/core/shape.hpp"

namespace instinfer::attention {

// The summary S of one KV head under a format: told of every token that enters or leaves the cache, in order. A state that
// grows may have
//   reserve(count)   takes the memory that the next `count` appends need; may throw
//   bytes()          fast memory that it stands for; sizeof(state) where it does not say
// Attention may feed back into a state; then attends of one sequence and layer must not run at the same time. Values are
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

struct takes_any_parts {
  void operator()(auto&... part) const;
};

// A state that can lie in a file with its cache (store/cache_file.hpp) also has
//   name()            tells it, and its parameters, from other states
//   each_part(file)   calls file(part...) with all that results may depend on: numbers, vectors of them, and what has an
//                     each_part of its own; the same parts in the same order to the file and back. It changes nothing itself.
//   fits(first, tokens, all)
//                     whether the parts from a file can be those of live tokens [first, tokens): every size and index that
//                     later calls rely on. `all`: the states of the head, for a state that refers to another one.
template <class State>
concept SavableState = requires(State& s, takes_any_parts file) {
  { State::name() } -> std::convertible_to<std::string>;
  s.each_part(file);
  { s.fits(std::uint32_t{}, std::uint32_t{}, std::tuple<>{}) } -> std::convertible_to<bool>;
};

// A state whose `learns` is true is fed back to by attention. Two requests of one sequence may then not be in one batch: each would
// have to know what the other one taught.
template <class State>
inline constexpr bool learns = requires { requires State::learns; };
template <class... S>
inline constexpr bool learns<std::tuple<S...>> = (learns<S> || ...);

// A state whose `any_order` is true may forget tokens in any order. Only with such summaries can a policy answer the queries
// of several new tokens in one call: each must not know of the tokens after its own.
template <class State>
inline constexpr bool forgets_in_any_order = requires { requires State::any_order; };
template <class... S>
inline constexpr bool forgets_in_any_order<std::tuple<S...>> = (forgets_in_any_order<S> && ...);
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
      "instinfer: a summary lacks append(k, v) or forget(k, v), both noexcept, see summaries/concepts.hpp");
  template <class Format>
  using states = std::tuple<typename S::template state<typename Format::decoded>...>;
};

// Index keys [any] that come with a token, shared by all KV heads, go to the states that take them as a third argument.
template <class State, class Row>
void append_to(State& state, Row k, Row v, std::span<const float> index_key) noexcept {
  if constexpr (requires { state.append(k, v, index_key); }) {
    state.append(k, v, index_key);
  } else {
    state.append(k, v);
  }
}

template <class State>
void reserve_summary(State& state, std::uint32_t count) {
  if constexpr (requires { state.reserve(count); }) {
    state.reserve(count);
  }
}
template <class State>
std::uint64_t summary_bytes(const State& state) {
  if constexpr (requires { state.bytes(); }) {
    return state.bytes();
  } else {
    return sizeof(State);
  }
}

// Dims of the index keys that a policy's summaries take (S::index_dims); 0 where none takes any.
template <class Summaries>
inline constexpr int index_dims = 0;
template <class S, class... Others>
inline constexpr int index_dims<summary_list<S, Others...>> = [] {
  if constexpr (requires { S::index_dims; }) {
    return S::index_dims;
  } else {
    return index_dims<summary_list<Others...>>;
  }
}();

// Throws bad_argument unless index keys are what the summaries take: [new_tokens, index_dims] finite values, or none where the
// policy takes none or K rows are long enough to stand in for them.
template <class Summaries>
void check_index_keys(std::span<const float> keys, std::size_t new_tokens, int k_dim) {
  constexpr int dims = index_dims<Summaries>;
  const std::size_t wanted = new_tokens * static_cast<std::size_t>(dims);
  require(keys.size() == wanted || (keys.empty() && (dims == k_dim || new_tokens == 0)), [&] {
    return "append: index keys must be [" + std::to_string(new_tokens) + ", " +
           std::to_string(dims) + "], got " + std::to_string(keys.size()) + " values";
  });
  require(std::ranges::all_of(keys, [](float x) { return is_finite(x); }),
          [] { return std::string("append: index keys must be finite"); });
}

// Whether the states of a head, a std::tuple, hold a State.
template <class State, class States>
inline constexpr bool keeps = false;
template <class State, class... S>
inline constexpr bool keeps<State, std::tuple<S...>> = (std::same_as<State, S> || ...);

}  // namespace instinfer::attention
