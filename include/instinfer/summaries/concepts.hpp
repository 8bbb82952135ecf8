#pragma once
// Summaries: what the cache keeps of a KV head in fast memory, in addition to the pages.
// A policy lists the summaries it needs; the engine maintains them on append and reclaim.
//
//   mean_value          running mean of V (SparQ, SparF: v-bar of InstInfer Alg. 1)
//   page_bounds<16>     smallest and largest key of a group of tokens (Quest)
//   cluster_index       clusters of keys, with their mean keys and values
//                       (Squeezed Attention, RetroInfer)
//   cluster_tree        clusters of these centroids (Squeezed Attention with two levels)
//   wave_buffer         a block cache of pages (RetroInfer)
//   heavy_hitters       summed attention weights of a bounded set of tokens (H2O)
//   moving_weights      moving averages of attention weights, and tokens selected by them (HGCA)
//   index_keys<128>     keys of a trained indexer, with block means (DSA, MISA)
//
// Each summary has a header of its name; cluster_tree is in cluster_index.hpp.

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <tuple>
#include <utility>

#include "instinfer/core/shape.hpp"

namespace instinfer::attention {

// The summary S of one KV head for a format. The engine reports every token that enters or leaves
// the cache, in order. A state that grows may have
//   reserve(count)   takes the memory that the next `count` appends need; may throw
//   bytes()          its size in fast memory; sizeof(state) if this member is missing
// A store without data has no values to report (store::ledger, for timing alone). There, a state
// learns of tokens in one of two ways, or not at all:
//   ignores_values = true               append() and forget() with empty rows
//   append_count(n), forget_count(n)    n tokens without values; both noexcept. Its other members
//                                       then answer what depends on counts alone
//
// Attention may feed results back into a state. Attends of one sequence and layer must then not run
// at the same time.
//
// A summary sees the values as stored. If sealing a page rounds them (int8 and other codecs), the
// format is fp32, and a summary whose forget() subtracts what append() added must also have both of
// the following. Other summaries may have them. Both are noexcept.
//   s.restate_k(before, after)   one token's K [k_dim] changes from `before` to `after`
//   s.restate_v(before, after)   the same for V [v_dim]
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

// The engine can take back the newest tokens (truncate) if every state can, in one of two ways. A
// state with any_order gets forget() for each of them. Any other has
//   truncate(n, all)        noexcept: goes back to its first n tokens, as if no later one had been
//                           appended. `all`: the states of the head. Memory stays reserved
//   may_truncate(tokens)    optional: whether it can go back to `tokens`. Otherwise the engine
//                           refuses, and nothing changes
//   whole_before(tokens)    optional: the largest n <= tokens to which it can go back without rows,
//                           at least the first live token. The engine calls truncate(n), and
//                           appends the tokens [n, tokens) again
// A stream is endless if the layer can number its tokens anew when their numbers are used up. That
// takes of every state without any_order
//   rebase(n)               noexcept: token n gets the number 0, and so on. All tokens before n are
//                           forgotten
//   rebase_tokens           if it numbers groups of tokens: their size; n is a multiple of it
//
// A state that never looks at K says ignores_keys = true, so that its rows of K are not read.

// A state that can be saved in a file with its cache (store/sequences/cache_file.hpp) also has
//   name()            distinguishes it, with its parameters, from other states
//   each_part(file)   calls file(part...) with everything that results may depend on: numbers,
//                     vectors of numbers, and objects with an each_part of their own. Saving and
//                     loading pass the same parts in the same order. It changes nothing itself.
//   fits(first, tokens, all)
//                     whether parts from a file can be those of live tokens [first, tokens): checks
//                     every size and index that later calls rely on. `all`: the states of the head,
//                     for a state that refers to another one.
template <class State>
concept SavableState = requires(State& s, takes_any_parts file) {
  { State::name() } -> std::convertible_to<std::string>;
  s.each_part(file);
  { s.fits(std::uint32_t{}, std::uint32_t{}, std::tuple<>{}) } -> std::convertible_to<bool>;
};

// Attention feeds back into a state whose `learns` is true. A batch may then hold only one request
// per sequence: two of them would each depend on what the other one taught.
template <class State>
inline constexpr bool learns = requires { requires State::learns; };
template <class... S>
inline constexpr bool learns<std::tuple<S...>> = (learns<S> || ...);

// Whether a prompt's queries teach a state anything that later results depend on. A cache has
// `only_caches` true: they do not.
template <class State>
inline constexpr bool learns_results = learns<State> && !requires { requires State::only_caches; };
template <class... S>
inline constexpr bool learns_results<std::tuple<S...>> = (learns_results<S> || ...);

// A state with `only_built` true changes with engine::build and truncate alone: tokens that come,
// and queries, do not change it.
template <class State>
inline constexpr bool only_built = requires { requires State::only_built; };

// A state with `any_order` true can forget tokens in any order.
template <class State>
inline constexpr bool forgets_in_any_order = requires { requires State::any_order; };
template <class... S>
inline constexpr bool forgets_in_any_order<std::tuple<S...>> = (forgets_in_any_order<S> && ...);
template <class State>
void rebase(State& state, std::uint32_t n) noexcept {
  if constexpr (requires { state.rebase(n); }) {
    state.rebase(n);
  }
}

// The smallest common multiple; 0, which no token number reaches, if it is beyond 2^32.
constexpr std::uint64_t common_multiple(std::uint64_t a, std::uint64_t b) {
  std::uint64_t divisor = a, rest = b;
  while (rest != 0) {
    divisor = std::exchange(rest, divisor % rest);
  }
  const std::uint64_t multiple = divisor == 0 ? 0 : a / divisor * b;
  return multiple >> 32 == 0 ? multiple : 0;
}
// What n must be a multiple of, for all states of a head; 0 if one of them cannot.
template <class State>
inline constexpr std::uint64_t rebase_tokens = [] {
  if constexpr (requires { State::rebase_tokens; }) {
    return std::uint64_t{State::rebase_tokens};
  } else {
    return std::uint64_t{forgets_in_any_order<State> || requires(State & s){s.rebase(0u);
  }
};
}
}
();
template <class... S>
inline constexpr std::uint64_t rebase_tokens<std::tuple<S...>> = [] {
  std::uint64_t all = 1;
  ((all = common_multiple(all, rebase_tokens<S>)), ...);
  return all;
}();

template <class State>
inline constexpr bool ignores_keys = requires { requires State::ignores_keys; };

// Whether a state can take tokens back.
template <class State>
inline constexpr bool takes_back = forgets_in_any_order<State> || requires(State& s) {
  s.truncate(std::uint32_t{}, std::tuple<State>{});
};
template <class... S>
inline constexpr bool takes_back<std::tuple<S...>> = (takes_back<S> && ...);

template <class State>
bool may_truncate(const State& state, std::uint32_t tokens) {
  if constexpr (requires { state.may_truncate(tokens); }) {
    return state.may_truncate(tokens);
  } else {
    return true;
  }
}
template <class State>
std::uint32_t whole_before(const State& state, std::uint32_t tokens) {
  if constexpr (requires { state.whole_before(tokens); }) {
    return state.whole_before(tokens);
  } else {
    return tokens;
  }
}

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

// Index keys [any] come with a token and are shared by all KV heads. They go to the states that
// take them as a third argument.
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

// The same for `count` tokens without values.
template <class State>
inline constexpr bool ignores_values = requires { requires State::ignores_values; };
template <class State>
void reserve_count(State& state, std::uint32_t count) {
  if constexpr (ignores_values<State>) {
    reserve_summary(state, count);
  }
}
template <class State>
void append_count(State& state, std::uint32_t count) noexcept {
  if constexpr (ignores_values<State>) {
    for (std::uint32_t t = 0; t < count; ++t) {
      state.append({}, {});
    }
  } else if constexpr (requires { state.append_count(count); }) {
    state.append_count(count);
  }
}
template <class State>
void forget_count(State& state, std::uint32_t count) noexcept {
  if constexpr (ignores_values<State>) {
    for (std::uint32_t t = 0; t < count; ++t) {
      state.forget({}, {});
    }
  } else if constexpr (requires { state.forget_count(count); }) {
    state.forget_count(count);
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

// Dims of the index keys that the summaries of a policy take (S::index_dims); 0 if none takes any.
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

// Throws bad_argument unless `keys` are what the summaries take: [new_tokens, index_dims] finite
// values. No keys are also accepted if the policy takes none, or if K rows are long enough to
// replace them.
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

// Whether the states of a head, a std::tuple, contain a State.
template <class State, class States>
inline constexpr bool keeps = false;
template <class State, class... S>
inline constexpr bool keeps<State, std::tuple<S...>> = (std::same_as<State, S> || ...);

}  // namespace instinfer::attention
