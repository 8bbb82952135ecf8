#pragma once
// The contract between attention policies and the machines that run them. A policy is a short program over the abstract
// attention machine and reads like its paper's algorithm; a path (reference, cpu, flash, ...) is such a machine.
//
//   dense    every visible token                                                    attention/dense.hpp
//   sparq    dims of the query choose tokens, entry by entry; local window          attention/sparq.hpp
//   sparf    SparQ for flash: page filter, then entry filter                        attention/sparf.hpp
//
// Operations come in four kinds: choose (dims, tokens), score, fold, and corrections of the result. A machine works on
// the query group of one KV head: a choice is shared by the group's query heads, scores and results are per query head.

#include <concepts>

#include "instinfer/attention/summaries.hpp"
#include "instinfer/core/budget.hpp"

namespace instinfer::attention {

// The operations, with the operand types that a machine names: query, dims, scores, tokens. Semantics:
//   all_tokens(q)                  the visible tokens
//   top_dims(q, keep)              the dims with the largest sum of |q| over the group; ties to the lower dim
//   score_dims(q, dims)            softmax over the visible tokens of q[dims].K[:, dims] at SparQ's temperature, per
//                                  query head; reads K by dim where the layout has it
//   top_tokens(scores, keep, local) the tokens with the largest sum of scores over the group; the `local` newest ones
//                                  are always among them; ties to the lower token
//   fold(q, tokens)                exact softmax attention over the tokens' K and V, merged into the result so far; sets
//                                  that are folded one after the other must be disjoint
//   blend_mean(scores, tokens)     result = a * result + (1 - a) * mean V, with a = the scores' sum over the tokens; once,
//                                  after the folds. Nothing happens where a window hides live tokens.
template <class M>
concept AttentionMachine =
    requires(M& m, const typename M::query& q, typename M::dims dims, typename M::scores scores,
             typename M::tokens tokens, budget keep) {
      { m.all_tokens(q) } -> std::same_as<typename M::tokens>;
      { m.top_dims(q, keep) } -> std::same_as<typename M::dims>;
      { m.score_dims(q, dims) } -> std::same_as<typename M::scores>;
      { m.top_tokens(scores, keep, keep) } -> std::same_as<typename M::tokens>;
      m.fold(q, tokens);
      m.blend_mean(scores, tokens);
    };

// A machine with declarations only, against which policies are checked without any path's headers.
struct machine_archetype {
  struct query {};
  struct dims {};
  struct scores {};
  struct tokens {};
  tokens all_tokens(const query&);
  dims top_dims(const query&, budget);
  scores score_dims(const query&, dims);
  tokens top_tokens(scores, budget, budget);
  void fold(const query&, tokens);
  void blend_mean(scores, tokens);
};

// A policy: default constructible, copyable, a list of summaries, and a call operator that is a template over the
// machine. Deterministic: the same machine and query give the same operations.
template <class P>
concept AttentionPolicy =
    std::semiregular<P> && requires(const P& p, machine_archetype& m, machine_archetype::query q) {
      typename P::summaries;
      p(m, q);
    };

// A policy may promise `static constexpr bool folds_all_visible = true`: its program is m.fold(q, m.all_tokens(q)) and
// nothing else. Engines then answer the queries of several new tokens in one pass over what all of them see.
template <class P>
inline constexpr bool folds_all_visible = requires { requires P::folds_all_visible; };

}  // namespace instinfer::attention
