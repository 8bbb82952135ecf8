#pragma once
// Every method at one budget: the settings with which it wants a given share of the bytes that
// dense attention reads.

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>

#include "instinfer/methods/dense.hpp"
#include "instinfer/methods/dsa.hpp"
#include "instinfer/methods/h2o.hpp"
#include "instinfer/methods/hgca.hpp"
#include "instinfer/methods/misa.hpp"
#include "instinfer/methods/per_query_head.hpp"
#include "instinfer/methods/quest.hpp"
#include "instinfer/methods/retro_infer.hpp"
#include "instinfer/methods/sparf.hpp"
#include "instinfer/methods/sparq.hpp"
#include "instinfer/methods/squeezed.hpp"
#include "instinfer/methods/streaming_llm.hpp"
#include "instinfer/methods/top_values.hpp"

namespace instinfer::methods {

// Wanted bytes are those of K and V that a query uses, wherever they lie: of the tokens that it
// folds, and of K that it reads to choose them (traffic::wanted_bytes). Rows of summaries are not
// among them: docs/methods.md has a table of what else each method reads.
//
//   share of K and V        how it is spent
//   dense                   1 only
//   top_values              above 1/2: all of K, then V
//   streaming_llm           sinks, and a window
//   h2o                     half heavy hitters, half newest
//   hgca                    half window; half the most salient older tokens
//   sparq, sparf            half dims of all K, half tokens; sparf for groups: sparf::for_groups
//   quest                   pages, in every layer: no dense layers
//   squeezed                a window, then clusters: calibrate() sets the threshold that does it
//   retro_infer             sinks, window and what waits for the index; clusters with the rest
//   dsa, misa               tokens
//   per_query_head          the share of its method, divided by the query heads of a group
namespace detail {

using attention::per_query_head;

// For the errors of methods that cannot.
[[noreturn]] inline void throw_beyond(const char* method, const char* why, double share) {
  throw bad_argument(std::string("at_budget: ") + method + " " + why + ", got " +
                     std::to_string(share));
}

// Share b of n tokens, at least one.
inline std::uint32_t tokens_of(double b, std::uint32_t n) {
  return std::max(1u, static_cast<std::uint32_t>(std::lround(b * n)));
}

inline attention::dense set(std::type_identity<attention::dense>, double b, std::uint32_t) {
  if (b < 1.0) {
    throw_beyond("dense", "reads everything, its share is 1", b);
  }
  return {};
}
inline attention::top_values set(std::type_identity<attention::top_values>, double b,
                                 std::uint32_t) {
  if (b <= 0.5) {
    throw_beyond("top_values", "reads all of K, its share is above 1/2", b);
  }
  return {.keep_values = 2 * b - 1};
}
inline attention::streaming_llm set(std::type_identity<attention::streaming_llm>, double b,
                                    std::uint32_t n) {
  attention::streaming_llm m;
  m.sinks = std::min(m.sinks, tokens_of(b, n) - 1);
  m.window = budget::at_most(tokens_of(b, n) - m.sinks);
  return m;
}
// A query sees the kept tokens and its own.
inline attention::h2o set(std::type_identity<attention::h2o>, double b, std::uint32_t n) {
  const std::uint32_t kept = std::max(tokens_of(b, n), 2u) - 1;
  return {.heavy = kept / 2, .recent = kept - kept / 2};
}
// The window shrinks by blocks, so it has half a block less than its size on average.
inline attention::hgca set(std::type_identity<attention::hgca>, double b, std::uint32_t n) {
  const std::uint32_t window = tokens_of(b / 2, n);
  const std::uint32_t block = std::max(1u, window / 8);
  const double older = std::max(1.0, static_cast<double>(n - window));
  return {
      .window = window + block / 2,
      .block = block,
      .salience = {.beta = 0.0, .least_kept = 0, .most_kept = std::min(1.0, b / 2 * n / older)}};
}
inline attention::sparq set(std::type_identity<attention::sparq>, double b, std::uint32_t) {
  return attention::sparq::at_compression(1 / b);
}
template <std::uint32_t PageTokens>
attention::basic_quest<PageTokens> set(std::type_identity<attention::basic_quest<PageTokens>>,
                                       double b, std::uint32_t) {
  return {.keep_pages = b, .least_pages = 1, .dense_layers = 0};
}
inline attention::squeezed set(std::type_identity<attention::squeezed>, double b, std::uint32_t n) {
  attention::squeezed m;
  m.window = std::min(m.window, tokens_of(b / 4, n));
  return m;
}
// On average half of update_tokens wait for the index.
inline attention::retro_infer set(std::type_identity<attention::retro_infer>, double b,
                                  std::uint32_t n) {
  attention::retro_infer m;
  m.window = std::min(m.window, tokens_of(b / 8, n));
  m.update_tokens = std::min(m.update_tokens, tokens_of(b / 4, n));
  const double steady = m.sinks + m.window + m.update_tokens / 2.0;
  const double clusters = std::clamp((b * n - steady) / std::max(1.0, n - steady), 0.0, 1.0);
  m.retrieved = clusters;
  m.estimated = std::min(0.232, 1.0 - clusters);
  return m;
}
template <int IndexDims>
attention::basic_dsa<IndexDims> set(std::type_identity<attention::basic_dsa<IndexDims>>, double b,
                                    std::uint32_t) {
  return {.keep_tokens = b};
}
template <int IndexDims, std::uint32_t BlockTokens>
attention::basic_misa<IndexDims, BlockTokens> set(
    std::type_identity<attention::basic_misa<IndexDims, BlockTokens>>, double b, std::uint32_t) {
  return {.keep_tokens = b};
}

}  // namespace detail

// The settings of method M for a share of dense's K and V bytes, at a context of `tokens`. `group`:
// query heads of a KV head, for per_query_head and sparf. `layers`: of the model, all with M; sparf
// may spend more on the first. Throws bad_argument for a share outside (0, 1], for no tokens, heads
// or layers, and for a share that the method cannot have.
template <class M>
M at_budget(double share, std::uint32_t tokens, std::uint32_t group = 1, std::uint32_t layers = 1) {
  require(share > 0.0 && share <= 1.0 && tokens > 0 && group > 0 && layers > 0, [&] {
    return "at_budget: the share must lie in (0, 1], tokens, group and layers be positive, got " +
           std::to_string(share) + ", " + std::to_string(tokens) + ", " + std::to_string(group) +
           " and " + std::to_string(layers);
  });
  if constexpr (std::same_as<M, attention::sparf>) {
    return group == 1 ? attention::sparf::as_published(1 / share)
                      : attention::sparf::for_groups(1 / share, layers);
  } else if constexpr (requires { detail::set(std::type_identity<M>{}, share, tokens); }) {
    return detail::set(std::type_identity<M>{}, share, tokens);
  } else {
    return []<class P>(std::type_identity<attention::per_query_head<P>>, double b,
                       std::uint32_t n) -> M {
      return {at_budget<P>(b, n)};
    }(std::type_identity<M>{}, share / group, tokens);
  }
}

}  // namespace instinfer::methods
