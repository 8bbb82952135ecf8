#pragma once
// Machine operations that the CUDA path lacks: a policy that uses one is refused in a sentence that names it.

#include "instinfer/attention/concepts.hpp"

namespace instinfer::cuda {

template <class Query, class Scores, class Tokens>
class missing_operations {
 public:
  struct units {
    std::uint32_t count() const { return 0; }
    bool empty() const { return true; }
  };

  template <class Q = Query>
  Tokens steady(const Q&, std::uint32_t, budget) {
    static_assert(!std::same_as<Q, Query>,
                  "instinfer: the CUDA path lacks steady, see cuda/missing_operations.cuh");
  }
  template <class S = Scores>
  units top_units(S, budget, budget = 0.0, attention::over_group = attention::over_group::sum) {
    static_assert(!std::same_as<S, Scores>,
                  "instinfer: the CUDA path lacks top_units, see cuda/missing_operations.cuh");
  }
  template <class S = Scores>
  units units_above(S, double, attention::over_group = attention::over_group::sum) {
    static_assert(!std::same_as<S, Scores>,
                  "instinfer: the CUDA path lacks units_above, see cuda/missing_operations.cuh");
  }
  template <class T = Tokens>
  T subtract(T, T) {
    static_assert(!std::same_as<T, Tokens>,
                  "instinfer: the CUDA path lacks subtract, see cuda/missing_operations.cuh");
  }
  template <class Q = Query>
  Scores score_tokens(const Q&, Tokens, tier = tier::flash) {
    static_assert(!std::same_as<Q, Query>,
                  "instinfer: the CUDA path lacks score_tokens, see cuda/missing_operations.cuh");
  }
  template <class S = Scores>
  void fold_scored(S, Tokens, tier = tier::flash) {
    static_assert(!std::same_as<S, Scores>,
                  "instinfer: the CUDA path lacks fold_scored, see cuda/missing_operations.cuh");
  }
  template <class S = Scores>
  void attenuate(S, Tokens) {
    static_assert(!std::same_as<S, Scores>,
                  "instinfer: the CUDA path lacks attenuate, see cuda/missing_operations.cuh");
  }
  template <class S = Scores>
  S weights(S) {
    static_assert(!std::same_as<S, Scores>,
                  "instinfer: the CUDA path lacks weights, see cuda/missing_operations.cuh");
  }
};

}  // namespace instinfer::cuda
