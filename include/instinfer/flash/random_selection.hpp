#pragma once
// A path without data: selections are random and nothing is computed.
// It times caches that are larger than any available memory.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/attention/scores.hpp"
#include "instinfer/core/access_plan.hpp"
#include "instinfer/core/drawn_numbers.hpp"
#include "instinfer/core/index_set.hpp"
#include "instinfer/flash/drawn_weights.hpp"
#include "instinfer/layout/head_pages.hpp"
#include "instinfer/store/pages/ledger.hpp"
#include "instinfer/store/pages/memory.hpp"

namespace instinfer::flash {

// Length of the runs of selected tokens: selected tokens have selected neighbours. Calibrated: on
// the SmolLM2 trace in examples/traces, SparF at 1/8 folds from 37 % of the token-indexed pages.
// Runs of 5 tokens give this share, single tokens 87 %. Dims, pages and clusters are drawn one by
// one.
inline constexpr std::uint32_t random_run_tokens = 5;

// Scores that nobody computed: their candidates, and weights that are drawn when asked for.
struct random_scores {
  index_view candidates;
  std::uint32_t run = 1;  // length of the runs of selected candidates
  double total = 1.0;     // number of candidates among which the weights are shared
  std::uint32_t id = 0;
  drawn_weights* weights = nullptr;

  std::size_t heads() const { return candidates.empty() ? 0 : 1; }  // alike for all of a group
  std::span<const float> head(std::size_t /*h*/) const {
    return weights->of(id, candidates, total);
  }
};

// Results are those of no tokens: outputs of zeros with a log-sum-exp of -inf. Draws depend only on
// the head and its number of tokens, so results repeat.
template <class Format>
class random_arithmetic {
 public:
  using format = Format;
  using scores = random_scores;

  void begin(const attention::query_group& /*q*/, const layout::head_pages& head) {
    const std::uint32_t number = head.of(stream::v_by_token).head;
    draws_ = drawn_numbers(std::uint64_t{number} << 32 | head.tokens);
    live_ = head.tokens - head.first;
    weights_.begin(number);
  }

  void top_dims(const attention::query_group& q, attention::group_reduction /*over*/,
                std::uint32_t r, index_set& chosen) {
    draw(index_set::range(0, q.dims()), r, 0, 1, chosen);
  }

  template <class Pages>
  scores score_dims(const attention::query_group&, index_view, index_view tokens,
                    const access_plan&, const layout::head_pages&, const Pages&) {
    return of_tokens(tokens);
  }

  template <class Pages>
  scores score_tokens(const attention::query_group&, index_view tokens, const access_plan&,
                      const layout::head_pages&, const Pages&) {
    return of_tokens(tokens);
  }

  template <class Table>
  scores score_rows(const attention::query_group&, index_view chunks, const Table&) {
    return shared(chunks, 1, chunks.count());
  }

  template <class Index>
  scores score_index(const attention::index_query&, index_view, index_view tokens, const Index&) {
    return of_tokens(tokens);
  }

  template <class Weight>
  scores softmax(const scores& logits, Weight&& weight_of) {
    double total = logits.candidates.count();
    if constexpr (!std::is_same_v<std::remove_cvref_t<Weight>, attention::one_each>) {
      total = 0;
      logits.candidates.for_each([&](std::uint32_t c) { total += weight_of(c); });
    }
    return shared(logits.candidates, logits.run, total);
  }

  // Weights within the state: among all live tokens.
  scores weights(const scores& logits) { return shared(logits.candidates, logits.run, live_); }

  std::span<const float> rank(const scores& s, attention::group_reduction) {
    return s.candidates.empty() ? std::span<const float>() : s.head(0);
  }

  void top(const scores& s, attention::group_reduction, std::uint32_t k, std::uint32_t newest,
           index_set& chosen) {
    draw(s.candidates, k, newest, s.run, chosen);
  }

  template <class Pages>
  void fold(const attention::query_group&, const access_plan&, const layout::head_pages&,
            const Pages&) {}

  template <class Pages>
  void fold_scored(const scores&, index_view, const access_plan&, const layout::head_pages&,
                   const Pages&) {}

  template <class Table>
  void fold_rows(const scores&, index_view, const Table&) {}

  void keep_mass(const scores&, index_view) {}

  template <class Mean>
  void blend_mean(const scores&, index_view, const Mean&) {}

  void finish(std::span<float> out, std::span<float> log_sum_exp) {
    std::fill(out.begin(), out.end(), 0.0f);
    std::fill(log_sum_exp.begin(), log_sum_exp.end(), -std::numeric_limits<float>::infinity());
  }

 private:
  scores shared(index_view candidates, std::uint32_t run, double total) {
    return {candidates, run, total, weights_.next_id(), &weights_};
  }
  scores of_tokens(index_view tokens) { return shared(tokens, random_run_tokens, tokens.count()); }

  // Draws k indices of the set: its `local` last ones, and the others in runs of `run` neighbours.
  // Runs are drawn by selection sampling: each subset of runs is equally likely, in one pass.
  // O(runs of `from` and drawn runs), not O(tokens).
  void draw(index_view from, std::uint32_t k, std::uint32_t local, std::uint32_t run,
            index_set& chosen) {
    std::uint32_t left = from.count() - local;  // number of indices still to draw from
    std::uint32_t wanted = k - local;
    std::uint32_t left_of_run = 0;
    bool taking = false;
    for (const index_run& piece : from.runs()) {
      std::uint32_t i = piece.first;
      while (i < piece.last && left > 0) {
        if (left_of_run == 0) {
          const std::uint32_t runs_left = (left + run - 1) / run;
          taking = draws_.next() % runs_left < (wanted + run - 1) / run;
          left_of_run = run;
        }
        // Skip what is not taken, as long as enough indices are left for all wanted ones.
        const std::uint32_t here = std::min({left_of_run, left, piece.last - i});
        const std::uint32_t passed = taking ? 0 : std::min(here, left - wanted);
        const std::uint32_t taken = std::min(here - passed, wanted);
        chosen.add(i + passed, i + passed + taken);
        wanted -= taken;
        left -= here;
        left_of_run -= here;
        i += here;
      }
      chosen.add(i, piece.last);  // the last `local` indices
    }
  }

  drawn_numbers draws_;
  drawn_weights weights_;
  std::uint32_t live_ = 0;  // tokens of the head
};

struct random_selection {
  template <class Format>
  using arithmetic = random_arithmetic<Format>;
};

// Random selection needs no data.
template <class Path>
using default_store =
    std::conditional_t<std::is_same_v<Path, random_selection>, store::ledger, store::memory>;

}  // namespace instinfer::flash
