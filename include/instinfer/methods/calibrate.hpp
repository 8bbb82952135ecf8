#pragma once
// The thresholds of Squeezed Attention for an engine, in one call: measured on a built prompt, and
// set for all calls that follow.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#include "instinfer/methods/squeezed.hpp"
#include "instinfer/methods/threshold_calibration.hpp"

namespace instinfer::methods {

namespace detail {

// The engine that computes: flash::engine has one inside.
template <class Engine>
const auto& computing(const Engine& engine) {
  if constexpr (requires { engine.inner(); }) {
    return engine.inner();
  } else {
    return engine;
  }
}

// Pools the heads of all layers, by the level S of the index. q [layers, n, q_heads, k_dim].
template <class S, class Engine>
attention::threshold_calibration pooled(const Engine& engine, sequence seq,
                                        std::span<const float> q) {
  using format = typename Engine::format;
  using state = typename S::template state<typename format::padded::decoded>;
  const model_shape& shape = engine.cache().shape();
  const auto group = static_cast<std::uint32_t>(shape.group());
  const auto heads = static_cast<std::size_t>(shape.q_heads);
  constexpr auto dim = static_cast<std::size_t>(format::k_dim);
  const std::size_t n = q.size() / (static_cast<std::size_t>(shape.layers) * heads * dim);
  attention::threshold_calibration all;
  std::vector<float> rows(n * group * state::row_dim);  // [n, group, row_dim], zeros after k_dim
  for (int l = 0; l < shape.layers; ++l) {
    for (std::size_t h = 0; h < static_cast<std::size_t>(shape.kv_heads); ++h) {
      for (std::size_t i = 0; i < n * group; ++i) {
        const std::size_t query = static_cast<std::size_t>(l) * n + i / group;
        std::copy_n(
            q.begin() + static_cast<std::ptrdiff_t>((query * heads + h * group + i % group) * dim),
            dim, rows.begin() + static_cast<std::ptrdiff_t>(i * state::row_dim));
      }
      all.add_groups(
          std::get<state>(engine.cache().at(seq, l).summaries(static_cast<std::uint32_t>(h))), rows,
          group, engine.logits());
    }
  }
  return all;
}

}  // namespace detail

// Sets the thresholds of an engine over squeezed, so that the queries q [layers, n, q_heads, k_dim]
// of a prompt that build() has clustered in all layers want `share` of its K and V bytes on
// average: the tokens outside the index, which are read by all, and the clusters with the rest.
// With two levels, coarse clusters with twice the tokens pass first. Returns the settings. Engine:
// instinfer::engine or flash::engine. Throws unknown_sequence;
// bad_argument for wrong sizes, layers without an index, and a share that the tokens outside the
// index exceed. The settings are then as before.
template <class Engine>
attention::squeezed calibrate(Engine& engine, sequence seq, std::span<const float> q,
                              double share) {
  const auto& on = detail::computing(engine);
  using format = typename std::remove_cvref_t<decltype(on)>::format;
  using index = attention::cluster_index::state<typename format::padded::decoded>;
  using tree = attention::cluster_tree::state<typename format::padded::decoded>;
  const model_shape& shape = on.cache().shape();
  const auto layers = static_cast<std::size_t>(shape.layers);
  const std::size_t row = layers * shape.q_values(format::k_dim);
  require(!q.empty() && q.size() % row == 0, [&] {
    return "calibrate: q must be [" + std::to_string(layers) + ", n, " +
           std::to_string(shape.q_heads) + ", " + std::to_string(format::k_dim) + "], n > 0, got " +
           std::to_string(q.size()) + " values";
  });
  double tokens = 0, indexed = 0;
  bool levels = false;
  for (int l = 0; l < shape.layers; ++l) {
    const auto& states = on.cache().at(seq, l).summaries(0);
    const std::uint32_t size = std::get<index>(states).indexed().size();
    require(size > 0, [&] {
      return "calibrate: layer " + std::to_string(l) + " has no index; build() makes it";
    });
    tokens += on.tokens(seq, l);
    indexed += size;
    levels = levels || std::get<tree>(states).chunks() > 0;
  }
  const double outside = (tokens - indexed) / tokens;
  const double kept = std::min(1.0, (share - outside) / (1.0 - outside));
  require(share <= 1.0 && 1.0 - kept < 1.0, [&] {
    return "calibrate: the share must be at most 1 and above " + std::to_string(outside) +
           ", the share of the tokens outside the index, got " + std::to_string(share);
  });
  attention::squeezed policy = engine.attention();
  policy.threshold = detail::pooled<attention::cluster_index>(on, seq, q).threshold(1.0 - kept);
  policy.coarse_threshold = levels ? detail::pooled<attention::cluster_tree>(on, seq, q)
                                         .threshold(std::max(0.0, 1.0 - 2 * kept))
                                   : 0.0;
  engine.set_policy(policy);
  return policy;
}

}  // namespace instinfer::methods
