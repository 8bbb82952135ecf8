#pragma once
// The contract between attention policies and the machines that run them. A policy is a short program over the abstract
// attention machine and reads like its paper's algorithm; a path (reference, cpu, flash, ...) is such a machine.
//
//   read all             dense            every visible token                                  methods/dense.hpp
//                        top_values       FlexGen: all of K, the V rows of the largest weights  methods/top_values.hpp
//   by position          streaming_llm    sinks and a window                                   methods/streaming_llm.hpp
//   by dims of the query sparq            entry by entry, with a local window                  methods/sparq.hpp
//                        sparf            SparQ for flash: page filter, then entry filter      methods/sparf.hpp
//   by bounds of pages   quest            pages by an upper bound of their logits              methods/quest.hpp
//   by clusters          squeezed         clusters above a calibrated probability, two levels  methods/squeezed.hpp
//                        retro_infer      best clusters exactly, the next best estimated       methods/retro_infer.hpp
//   by past weights      h2o              heavy hitters and the newest                         methods/h2o.hpp
//                        hgca             window in fast memory, salient older tokens          methods/hgca.hpp
//   by an index          dsa, misa        trained index keys; few index heads                  methods/dsa.hpp, misa.hpp
//   wrapper              per_query_head   the heads of a group select alone                    methods/per_query_head.hpp
//
// Operations come in five kinds: choose, score, fold, correct, observe. A machine works on the query group of one KV head: a
// choice is shared by the group's query heads, scores and results are per query head.

#include <concepts>

#include "instinfer/attention/rope.hpp"
#include "instinfer/attention/scores.hpp"
#include "instinfer/core/access_plan.hpp"
#include "instinfer/core/budget.hpp"
#include "instinfer/summaries/concepts.hpp"
#include "instinfer/summaries/index_query.hpp"

namespace instinfer::attention {

// The operations, with the operand types that a machine names: query, dims, scores, tokens, chunks. A chunk is what a summary
// has a row for: a page, a cluster (summaries/chunks.hpp). Semantics:
//
// choose
//   all_tokens(q)                  the visible tokens
//   steady(q, sinks, window)       of them, the `sinks` oldest and the `window` newest
//   moved_back(q, n, rope)         the query as it would be n positions earlier (StreamingLLM)
//   top_dims(q, keep)              the dims with the largest sum of |q| over the group; ties to the lower dim
//   top_tokens(scores, keep, newest, over)  the candidates with the largest rank; the `newest` last ones of the kept are always
//                                  among them; ties to the lower index. keep is of the candidates, newest of the kept
//   top_chunks(scores, keep, newest, over)   the same for chunks
//   chunks_above(scores, x, over)   the chunks whose rank is above x
//   view(set), run(first, last)    a set that a summary keeps
//   unite, intersect, subtract     of two sets of tokens, or of chunks
//   all_chunks<S>()                 the chunks of summary S
//   chunks_of<S>(tokens)            the chunks of summary S with a member among the tokens
//   members<S>(chunks)              the tokens of the chunks
// score: logits, unless said otherwise; one a query head and candidate
//   score_dims(q, dims)            q[dims].K[:, dims] of the visible tokens at SparQ's temperature; reads K by dim where the
//                                  layout has it
//   score_tokens(q, tokens, from)  q.K exactly
//   score_chunks<S>(q, chunks)       q against the rows of summary S
//   index_heads(q), top_heads<S>(q, keep, router)  heads of a trained indexer: all, or the most telling
//   score_index<S>(q, heads, tokens)  one score a token, of index keys S
//   softmax(logits)                probabilities over the candidates
//   softmax<S>(logits)             of one member of each chunk, if every member scored as its chunk does
// fold: into the result so far; what is folded one after the other must be disjoint
//   fold(q, tokens, from)          exact softmax attention over the tokens' K and V
//   fold_scored(logits, tokens, from)  the same where the logits are there: reads V only
//   fold_through<S>(q, tokens)     fold, by way of the block cache S
//   fold_chunks<S>(logits, chunks)   each chunk as so many tokens of its logit and mean value (an estimate)
// correct: once, after the folds
//   blend_mean(p, tokens)          result = a * result + (1 - a) * mean V, with a = the sum of p over the tokens. Nothing
//                                  happens where a window hides live tokens
//   attenuate(p, tokens)           result = a * result: weights that are not normalised anew
// observe
//   weights(logits)                probabilities within all that was folded
//   summary<S>()                   the state of summary S of this head, to be read or fed back to
//
// The concept asks for what every path has; a path may lack others, and then fails to compile by the operation's name.
template <class M>
concept AttentionMachine =
    requires(M& m, const typename M::query& q, typename M::dims dims, typename M::scores scores,
             typename M::tokens tokens, budget keep, residence from, group_reduction over) {
      { m.all_tokens(q) } -> std::same_as<typename M::tokens>;
      { m.top_dims(q, keep) } -> std::same_as<typename M::dims>;
      { m.score_dims(q, dims) } -> std::same_as<typename M::scores>;
      { m.softmax(scores) } -> std::same_as<typename M::scores>;
      { m.top_tokens(scores, keep, keep, over) } -> std::same_as<typename M::tokens>;
      m.fold(q, tokens, from);
      m.blend_mean(scores, tokens);
    };

// A machine with declarations only, against which policies are checked without any path's headers.
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
  dims top_dims(const query&, budget);
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
};

// A policy: default constructible, copyable, a list of summaries, and a call operator that is a template over the
// machine. Deterministic: the same machine and query give the same operations.
template <class P>
concept AttentionPolicy =
    std::semiregular<P> && requires(const P& p, machine_archetype& m, machine_archetype::query q) {
      typename P::summaries;
      p(m, q);
    };

// A policy may say `static constexpr bool shares_selection = false`: the query heads of a group run it one by one.
template <class P>
inline constexpr bool shares_selection = !requires { requires !P::shares_selection; };

// A policy that keeps its own window or order of tokens says `static constexpr bool own_window = true`: engines then refuse a
// logit rule with a window, which it could not honour.
template <class P>
inline constexpr bool own_window = requires { requires P::own_window; };

// A policy may promise `static constexpr bool folds_all_visible = true`: its program is m.fold(q, m.all_tokens(q)) and
// nothing else. Engines then answer the queries of several new tokens in one pass over what all of them see.
template <class P>
inline constexpr bool folds_all_visible = requires { requires P::folds_all_visible; };

}  // namespace instinfer::attention
