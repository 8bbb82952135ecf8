#pragma once
// The logit hooks: scale, soft cap, and the tokens that a query sees (sliding window, sinks).

#include <cmath>
#include <cstdint>
#include <string>

#include "instinfer/codec/element.hpp"
#include "instinfer/core/errors.hpp"
#include "instinfer/core/index_set.hpp"

namespace instinfer {

// Applied in this order: logit = q.k * scale; soft cap: logit = cap * tanh(logit / cap); then the
// mask. The default is 1/sqrt(k_dim), no cap, every token visible. A bias of a token goes into a
// dim of K: see docs/methods.md, which also says how heads and prompts are padded.
struct logit_rule {
  float scale = 0.0f;        // 0 means 1/sqrt(k_dim)
  float soft_cap = 0.0f;     // 0 means none (Gemma 2 uses 50)
  std::uint32_t window = 0;  // number of newest visible tokens; 0 means all
  // Number of oldest live tokens that stay visible in addition to the window (StreamingLLM uses 4).
  std::uint32_t sinks = 0;

  // The scale in the precision T of the path.
  template <class T = float>
  T scale_for(int k_dim) const {
    return scale > 0.0f ? static_cast<T>(scale) : T{1} / std::sqrt(static_cast<T>(k_dim));
  }

  template <class T>
  T capped(T logit) const {
    return soft_cap > 0.0f ? static_cast<T>(soft_cap) * std::tanh(logit / static_cast<T>(soft_cap))
                           : logit;
  }

  // Adds those of the live tokens [first, last) that the query sees to `tokens`.
  void visible(std::uint32_t first, std::uint32_t last, index_set& tokens) const {
    if (window == 0 || window >= last - first) {
      tokens.add(first, last);
      return;
    }
    const std::uint32_t window_first = last - window;
    tokens.add(first, first + std::min(sinks, window_first - first));
    tokens.add(window_first, last);
  }

  // Throws bad_argument if scale or soft_cap is NaN, infinite or negative, and for sinks without a
  // window.
  void validate() const {
    require(is_finite(scale) && scale >= 0.0f, [&] {
      return "logit_rule.scale must be finite and >= 0, got " + std::to_string(scale);
    });
    require(is_finite(soft_cap) && soft_cap >= 0.0f, [&] {
      return "logit_rule.soft_cap must be finite and >= 0, got " + std::to_string(soft_cap);
    });
    require(window > 0 || sinks == 0, [&] {
      return "logit_rule.sinks are for a window, got " + std::to_string(sinks) + " without one";
    });
  }
};

}  // namespace instinfer
