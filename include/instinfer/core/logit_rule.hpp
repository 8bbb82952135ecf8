#pragma once
// The logit hooks: scale, soft cap, biases, the tokens that a query sees (sliding window, sinks),
// and learned sinks.

#include <array>
#include <cstdint>
#include <span>
#include <string>

#include "instinfer/codec/element.hpp"
#include "instinfer/core/errors.hpp"
#include "instinfer/core/index_set.hpp"
#include "instinfer/core/math.hpp"

namespace instinfer {

// Applied in this order:
//   1. scale: logit = q.k * scale
//   2. soft cap: logit = cap * tanh(logit / cap)
//   3. biases are added: by slope, by distance, and those of a request (engine/attend_request.hpp)
//   4. mask: the window and its sinks, and the set of a request; hidden tokens are not read
//   5. learned sinks: exp(sink logit) is added to the denominator of the softmax
// The default is 1/sqrt(k_dim), no cap, no bias, every token visible. The distance of a token is
// the query's position minus the token's. Methods rank tokens by logits after step 3, but pages,
// clusters and index keys by their own scores. docs/methods.md has ALiBi and T5 as examples.
//
// Arrays are not copied and must outlive the engine. Their entries must be finite.
struct logit_rule {
  float scale = 0.0f;        // 0 means 1/sqrt(k_dim)
  float soft_cap = 0.0f;     // 0 means none (Gemma 2 uses 50)
  std::uint32_t window = 0;  // number of newest visible tokens; 0 means all
  // Number of oldest live tokens that stay visible in addition to the window (StreamingLLM uses 4).
  std::uint32_t sinks = 0;
  std::span<const float> slopes{};  // [q_heads]: adds -slope * distance (ALiBi)
  // [q_heads, n]: adds column `distance`, or the last column for larger distances (T5).
  std::span<const float> distance_bias{};
  // [q_heads] or [layers, q_heads]: logits of learned sinks, which have no value (gpt-oss).
  std::span<const float> sink_logits{};

  // The scale in the precision T of the path.
  template <class T = float>
  T scale_for(int k_dim) const {
    return scale > 0.0f ? static_cast<T>(scale) : T{1} / math::sqrt(static_cast<T>(k_dim));
  }

  template <class T>
  T capped(T logit) const {
    return soft_cap > 0.0f ? static_cast<T>(soft_cap) * math::tanh(logit / static_cast<T>(soft_cap))
                           : logit;
  }

  // Whether logits get a bias.
  bool biased() const { return !slopes.empty() || !distance_bias.empty(); }

  // Adds those of the live tokens [first, last) that the query sees to `tokens`.
  void visible(std::uint32_t first, std::uint32_t last, index_set& tokens) const {
    for (const index_run& run : visible_runs(first, last)) {
      tokens.add(run.first, run.last);
    }
  }
  // The same as runs, the first of which may be empty.
  std::array<index_run, 2> visible_runs(std::uint32_t first, std::uint32_t last) const {
    if (window == 0 || window >= last - first) {
      return {{{first, first}, {first, last}}};
    }
    const std::uint32_t window_first = last - window;
    return {{{first, first + std::min(sinks, window_first - first)}, {window_first, last}}};
  }

  // The sink logits of a layer's query heads [first, first + n); empty if there are none.
  std::span<const float> sink_logits_of(std::uint32_t layer, std::uint32_t first, std::uint32_t n,
                                        std::uint32_t q_heads) const {
    const std::size_t row = sink_logits.size() > q_heads ? std::size_t{layer} * q_heads : 0;
    return sink_logits.empty() ? sink_logits : sink_logits.subspan(row + first, n);
  }

  // Throws bad_argument unless the arrays are of a model with these layers and heads, and finite.
  void validate_arrays(std::size_t layers, std::size_t q_heads) const {
    require_finite(slopes, "slopes", slopes.empty() || slopes.size() == q_heads, q_heads, "");
    require_finite(distance_bias, "distance_bias", distance_bias.size() % q_heads == 0, q_heads,
                   ", n");
    require_finite(sink_logits, "sink_logits",
                   sink_logits.empty() || sink_logits.size() == q_heads ||
                       sink_logits.size() == layers * q_heads,
                   q_heads, "] or [layers, q_heads");
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

 private:
  static void require_finite(std::span<const float> values, const char* name, bool fits,
                             std::size_t q_heads, const char* shape) {
    require(fits, [&] {
      return std::string("logit_rule.") + name + " must be empty or [q_heads" + shape +
             "] with q_heads = " + std::to_string(q_heads) + ", got " +
             std::to_string(values.size()) + " values";
    });
    for (const float x : values) {
      require(is_finite(x), [&] {
        return std::string("logit_rule.") + name + " must be finite, has " + std::to_string(x);
      });
    }
  }
};

}  // namespace instinfer
