#pragma once
// The mergeable state of softmax attention for one query head (online softmax).
// Any split of the tokens, folded in any order and merged, gives the same output up to rounding.

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>

#include "instinfer/codec/unit_rules.hpp"

namespace instinfer {

// Running maximum m and sum l of the logits, natural base. The owner stores the weighted values o
// [v_dim], so that the state fits in a kernel's scratch. T is float on compute paths, double in the
// reference.
template <class T>
struct softmax_state {
  T max = -std::numeric_limits<T>::infinity();  // -inf: nothing folded yet
  T sum = 0;                                    // sum of exp(logit - max)

  // log(sum of exp(logit)), natural base; -inf for the empty state.
  T log_sum_exp() const {
    return sum > 0 ? max + std::log(sum) : -std::numeric_limits<T>::infinity();
  }
};

// exp(old_max - new_max), the factor that rescales sums taken under old_max. 0 for an empty state,
// where -inf - -inf would be NaN.
template <class T>
T rescale_factor(T old_max, T new_max) {
  return old_max > -std::numeric_limits<T>::infinity() ? std::exp(old_max - new_max) : T{0};
}

// Folds an entry with one logit and one value row [v_dim] into (state, o), counted `weight` times.
// A logit of -inf is masked out.
template <class T>
void fold_entry(softmax_state<T>& state, std::span<T> o, T logit, std::span<const T> value,
                T weight = T{1}) {
  if (logit <= -std::numeric_limits<T>::infinity()) {
    return;
  }
  const T new_max = std::max(state.max, logit);
  const T keep = rescale_factor(state.max, new_max);
  const T p = weight * std::exp(logit - new_max);
  state.sum = state.sum * keep + p;
  for (std::size_t i = 0; i < o.size(); ++i) {
    o[i] = o[i] * keep + p * value[i];
  }
  state.max = new_max;
}

// Merges (b, ob) into (a, oa); both o are [v_dim]. The empty state is the neutral element on both
// sides; two empty states give an empty state.
template <class T>
void merge(softmax_state<T>& a, std::span<T> oa, const softmax_state<T>& b, std::span<const T> ob) {
  const T new_max = std::max(a.max, b.max);
  const T keep_a = rescale_factor(a.max, new_max);
  const T keep_b = rescale_factor(b.max, new_max);
  a.max = new_max;
  a.sum = a.sum * keep_a + b.sum * keep_b;
  for (std::size_t i = 0; i < oa.size(); ++i) {
    oa[i] = oa[i] * keep_a + ob[i] * keep_b;
  }
}

// o / l: the attention output. The empty state (an all-masked row) gives zeros.
template <class T>
void normalise(const softmax_state<T>& state, std::span<T> o) {
  const T scale = state.sum > 0 ? T{1} / state.sum : T{0};
  for (T& x : o) {
    x *= scale;
  }
}

}  // namespace instinfer
