#pragma once
// The mergeable state of softmax attention for one query head (online softmax).
// Any split of the tokens, folded in any order and merged, gives the same output up to rounding.

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "instinfer/codec/unit_rules.hpp"

namespace instinfer {

// Running maximum m and sum l of the logits, natural base. The owner stores the output o [v_dim],
// so that the state fits in a kernel's scratch: the mean of the values so far by their weights,
// zeros for an empty state. A mean is never larger than the largest value, so it is finite for all
// finite values. T is float on compute paths, double in the reference.
template <class T>
struct softmax_state {
  T max = -std::numeric_limits<T>::infinity();  // -inf: nothing folded yet
  T sum = 0;                                    // sum of exp(logit - max)

  // log(sum of exp(logit)), natural base; -inf for the empty state.
  T log_sum_exp() const {
    return sum > 0 ? max + std::log(sum) : -std::numeric_limits<T>::infinity();
  }
};

// The log-sum-exp of all tokens, of which the folded ones have the share `kept` of the weights. A
// share that underflowed to 0 counts as the smallest normal number, so that the result is finite;
// -inf where nothing was folded.
template <class T>
T log_sum_exp_of_all(T folded, T kept) {
  return folded - std::log(std::max(kept, std::numeric_limits<T>::min()));
}

// Adds a learned sink, a token with a logit and no value, to a result with this log-sum-exp.
// Returns the factor of the output. If nothing was folded, the sink has all of the weight.
template <class T>
T add_sink(T& log_sum_exp, T sink) {
  const T max = std::max(log_sum_exp, sink);
  const T own = std::exp(log_sum_exp - max);
  const T sum = own + std::exp(sink - max);
  log_sum_exp = max + std::log(sum);
  return own / sum;
}

// exp(old_max - new_max), the factor that rescales sums taken under old_max. 0 for an empty state,
// where -inf - -inf would be NaN.
template <class T>
T rescale_factor(T old_max, T new_max) {
  return old_max > -std::numeric_limits<T>::infinity() ? std::exp(old_max - new_max) : T{0};
}

// Limits a mean of finite values to the finite numbers: near the largest number it can round up to
// infinity.
template <class T>
T finite_mean(T x) {
  constexpr T largest = std::numeric_limits<T>::max();
  return std::clamp(x, -largest, largest);
}

// o = share_o * o + share_x * x, [v_dim] each: the mean of two means whose shares add up to 1.
template <class T>
void mix_means(std::span<T> o, T share_o, std::span<const T> x, T share_x) {
  for (std::size_t i = 0; i < o.size(); ++i) {
    o[i] = finite_mean(o[i] * share_o + x[i] * share_x);
  }
}

// Folds an entry with one logit and one value row [v_dim] into (state, o), counted `weight` times.
// A logit of -inf is masked out.
template <class T>
void fold_entry(softmax_state<T>& state, std::span<T> o, T logit, std::span<const T> value,
                T weight = T{1}) {
  if (logit <= -std::numeric_limits<T>::infinity() || weight <= T{0}) {
    return;
  }
  const T new_max = std::max(state.max, logit);
  const T old_sum = state.sum * rescale_factor(state.max, new_max);
  const T p = weight * std::exp(logit - new_max);
  state.max = new_max;
  state.sum = old_sum + p;
  mix_means(o, old_sum / state.sum, value, p / state.sum);
}

// Merges (b, ob) into (a, oa); both o are [v_dim]. The empty state is the neutral element on both
// sides; two empty states give an empty state.
template <class T>
void merge(softmax_state<T>& a, std::span<T> oa, const softmax_state<T>& b, std::span<const T> ob) {
  const T new_max = std::max(a.max, b.max);
  const T sum_a = a.sum * rescale_factor(a.max, new_max);
  const T sum_b = b.sum * rescale_factor(b.max, new_max);
  a.max = new_max;
  a.sum = sum_a + sum_b;
  if (a.sum > 0) {
    mix_means(oa, sum_a / a.sum, ob, sum_b / a.sum);
  }
}

// The same for a part that is not divided yet: sums [v_dim] of weights times values. Weights, also
// those in b.sum, are scale * exp(logit - max).
template <class T>
void merge_sums(softmax_state<T>& a, std::span<T> oa, const softmax_state<T>& b,
                std::span<const T> sums, T scale) {
  const T new_max = std::max(a.max, b.max);
  const T sum_a = a.sum * rescale_factor(a.max, new_max);
  const T unit_b = rescale_factor(b.max, new_max) / scale;
  a.max = new_max;
  a.sum = sum_a + b.sum * unit_b;
  if (a.sum > 0) {
    mix_means(oa, sum_a / a.sum, sums, unit_b / a.sum);
  }
}

}  // namespace instinfer
