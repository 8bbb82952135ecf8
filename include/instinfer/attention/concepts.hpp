#pragma once
// The contract between attention policies and the machines that run them.
// A policy is a short program over the abstract attention machine and reads like its paper's
// algorithm. Each path (reference, cpu, flash, ...) is such a machine. Each policy has a header of
// its name in methods/:
//
//   read all              dense            every visible token
//                         top_values       FlexGen: all of K, the V rows of the largest weights
//   by position           streaming_llm    sinks and a window
//   by dims of the query  sparq            entry by entry, with a local window
//                         sparf            SparQ for flash: page filter, then entry filter
//   by bounds of pages    quest            pages by an upper bound of their logits
//   by clusters           squeezed         clusters above a calibrated probability, two levels
//                         retro_infer      best clusters exactly, the next best estimated
//   by past weights       h2o              heavy hitters and the newest tokens
//                         hgca             window in fast memory, salient older tokens
//   by an index           dsa, misa        trained index keys; misa uses few index heads
//   wrapper               per_query_head   each head of a group has its own selection
//
// There are five kinds of operations: choose, score, fold, correct, observe. A machine works on the
// query group of one KV head. The group's query heads share a choice; scores and results are per
// query head.

#include <concepts>

#include "instinfer/attention/rope.hpp"
#include "instinfer/attention/scores.hpp"
#include "instinfer/core/access_plan.hpp"
#include "instinfer/core/budget.hpp"
#include "instinfer/summaries/concepts.hpp"
#include "instinfer/summaries/index_query.hpp"

namespace instinfer::attention {

// The operations. A machine names the operand types query, dims, scores, tokens, chunks. A chunk is
// what a summary has a row for: a page or a cluster (summaries/chunks.hpp). Semantics:
//
// choose: ties go to the lower index
//   all_tokens(q)                the visible tokens
//   steady(q, sinks, window)     the `sinks` oldest and the `window` newest visible tokens
//   moved_back(q, n, rope)       the query rotated to a position n earlier (StreamingLLM)
//   top_dims(q, keep, over)      the dims with the largest |q|, reduced over the group
//   top_tokens(scores, keep, newest, over)
//                                the candidates with the largest rank. `keep` is a budget of the
//                                candidates. The `newest` last candidates are always kept; `newest`
//                                is a budget of the kept ones
//   top_chunks(scores, keep, newest, over)
//                                the same for chunks
//   chunks_above(scores, x, over)
//                                the chunks with a rank above x
//   view(set), run(first, last)  a set that a summary stores
//   unite, intersect, subtract   set algebra on two sets of tokens or of chunks
//   all_chunks<S>()              the chunks of summary S
//   chunks_of<S>(tokens)         the chunks of summary S with a member among the tokens
//   members<S>(chunks)           the tokens of the chunks
// score: one value per query head and candidate; logits, unless stated otherwise
//   score_dims(q, dims)          q[dims].K[:, dims] of the visible tokens at SparQ's temperature;
//                                reads K by dim if the layout stores it
//   score_tokens(q, tokens, from)
//                                q.K, exact
//   score_chunks<S>(q, chunks)   q against the rows of summary S
//   index_heads(q)               all heads of a trained indexer
//   top_heads<S>(q, keep, router)
//                                its heads with the highest scores
//   score_index<S>(q, heads, tokens)
//                                one score per token, from the index keys S
//   softmax(logits)              probabilities over the candidates
//   softmax<S>(logits)           probability of one member of each chunk, if every member had the
//                                score of its chunk
// fold: adds to the result; the tokens of successive folds must be disjoint
//   fold(q, tokens, from)        exact softmax attention over the tokens' K and V
//   fold_scored(logits, tokens, from)
//                                the same with known logits: reads only V
//   fold_through<S>(q, tokens)   fold that reads through the block cache S
//   fold_chunks<S>(logits, chunks)
//                                an estimate: each chunk counts as weight(chunk) tokens with the
//                                chunk's logit and mean value
// correct: once, after the folds
//   blend_mean(p, tokens)        result = a * result + (1 - a) * mean V, with a = the sum of p over
//                                the tokens; no effect if a window hides live tokens
//   attenuate(p, tokens)         result = a * result: the kept weights are not renormalised
// observe
//   weights(logits)              probabilities among everything folded so far
//   summary<S>()                 this head's state of summary S, to read it or feed it back
//
// The concept asks for the operations that every path has. A path may lack others; a policy that
// uses one of them then fails to compile, and the error shows the name of the operation.
template <class M>
concept AttentionMachine =
    requires(M& m, const typename M::query& q, typename M::dims dims, typename M::scores scores,
             typename M::tokens tokens, budget keep, residence from, group_reduction over) {
      { m.all_tokens(q) } -> std::same_as<typename M::tokens>;
      { m.top_dims(q, keep, over) } -> std::same_as<typename M::dims>;
      { m.score_dims(q, dims) } -> std::same_as<typename M::scores>;
      { m.softmax(scores) } -> std::same_as<typename M::scores>;
      { m.top_tokens(scores, keep, keep, over) } -> std::same_as<typename M::tokens>;
      m.fold(q, tokens, from);
      m.blend_mean(scores, tokens);
    };

// A machine with declarations only: policies are checked against it without the headers of any
// path.
struct machine_archetype {
  struct query {};
  struct dims {};
  struct scores {};
  struct tokens {
    std::uint32_t count() const;
    bool empty() const;
  };
  struct chunks {
    std::uint32_t count() const;
    bool empty() const;
  };
  tokens all_tokens(const query&);
  tokens steady(const query&, std::uint32_t, budget);
  query moved_back(const query&, std::uint32_t, const rope&);
  dims top_dims(const query&, budget, group_reduction = group_reduction::sum);
  tokens top_tokens(scores, budget, budget = 0.0, group_reduction = group_reduction::sum);
  chunks top_chunks(scores, budget, budget = 0.0, group_reduction = group_reduction::sum);
  chunks chunks_above(scores, double, group_reduction = group_reduction::sum);
  template <class Set>
  Set unite(Set, Set);
  template <class Set>
  Set intersect(Set, Set);
  template <class Set>
  Set subtract(Set, Set);
  template <class S>
  chunks all_chunks();
  template <class S>
  chunks chunks_of(tokens);
  template <class S>
  tokens members(chunks);
  tokens view(index_view);
  tokens run(index_run);
  scores score_dims(const query&, dims);
  scores score_tokens(const query&, tokens, residence = residence::flash);
  template <class S>
  scores score_chunks(const query&, chunks);
  chunks index_heads(const query&);
  template <class S>
  chunks top_heads(const query&, budget, head_router);
  template <class S>
  scores score_index(const query&, chunks, tokens);
  scores softmax(scores);
  template <class S>
  scores softmax(scores);
  void fold(const query&, tokens, residence = residence::flash);
  void fold_scored(scores, tokens, residence = residence::flash);
  template <class S>
  void fold_through(const query&, tokens);
  template <class S>
  void fold_chunks(scores, chunks);
  void blend_mean(scores, tokens);
  void attenuate(scores, tokens);
  scores weights(scores);
  template <class S>
  typename S::template state<kv_format<fp16, 128>>& summary();
  std::uint32_t layer() const;
  std::uint32_t layers() const;
};

// A policy is default constructible and copyable, and has a list of summaries and a call operator
// that is a template over the machine. It is deterministic: the same machine and query give the
// same operations.
template <class P>
concept AttentionPolicy =
    std::semiregular<P> && requires(const P& p, machine_archetype& m, machine_archetype::query q) {
      typename P::summaries;
      p(m, q);
    };

// A policy may declare `static constexpr bool shares_selection = false`: the engine then runs it
// for one query head of a group after the other.
template <class P>
inline constexpr bool shares_selection = !requires { requires !P::shares_selection; };

// A policy with its own window or order of tokens declares `static constexpr bool own_window =
// true`. Engines then refuse a logit rule with a window, because the policy could not apply it.
template <class P>
inline constexpr bool own_window = requires { requires P::own_window; };

// A policy may promise `static constexpr bool folds_all_visible = true`: its program is m.fold(q,
// m.all_tokens(q)) and nothing else. Engines then serve the queries of several new tokens in one
// pass over the tokens that all of them see.
template <class P>
inline constexpr bool folds_all_visible = requires { requires P::folds_all_visible; };

}  // namespace instinfer::attention
