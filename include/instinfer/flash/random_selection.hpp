#pragma once
// A path without data: selections are random and nothing is computed.
// It times caches that are larger than any available memory.

#include <algorithm>
#include <cstdint>
#include <span>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/attention/scores.hpp"
#include "instinfer/core/access_plan.hpp"
#include "instinfer/core/index_set.hpp"
#include "instinfer/layout/head_pages.hpp"

namespace instinfer::flash {

// Length of the runs of selected tokens: selected tokens have selected neighbours. Calibrated: on
// the SmolLM2 trace in examples/traces, SparF at 1/8 folds from 37 % of the token-indexed pages.
// Runs of 5 tokens give this share, single tokens 87 %. Dims are drawn one by one.
inline constexpr std::uint32_t random_run_tokens = 5;

// Outputs are zero. Draws depend only on the head and its number of tokens, so results repeat.
template <class Format>
class random_arithmetic {
 public:
  using format = Format;
  struct scores {
    index_view candidates;
  };

  void begin(const attention::query_group& /*q*/, const layout::head_pages& head) {
    state_ = std::uint64_t{head.of(stream::v_by_token).head} << 32 | head.tokens;
  }

  void top_dims(const attention::query_group& /*q*/, std::uint32_t r, index_set& chosen) {
    draw(index_set::range(0, Format::k_dim), r, 0, 1, chosen);
  }

  template <class Pages>
  scores score_dims(const attention::query_group&, index_view, index_view tokens,
                    const access_plan&, const layout::head_pages&, const Pages&) {
    return {tokens};
  }

  template <class Pages>
  scores score_tokens(const attention::query_group&, index_view tokens, const access_plan&,
                      const layout::head_pages&, const Pages&) {
    return {tokens};
  }

  template <class Weight>
  scores softmax(const scores& logits, Weight&&) {
    return logits;
  }

  void top(const scores& s, attention::group_reduction, std::uint32_t k, std::uint32_t newest,
           index_set& chosen) {
    draw(s.candidates, k, newest, random_run_tokens, chosen);
  }

  template <class Pages>
  void fold(const attention::query_group&, const access_plan&, const layout::head_pages&,
            const Pages&) {}

  template <class Pages>
  void fold_scored(const scores&, index_view, const access_plan&, const layout::head_pages&,
                   const Pages&) {}

  void keep_mass(const scores&, index_view) {}

  template <class Mean>
  void blend_mean(const scores&, index_view, const Mean&) {}

  void finish(std::span<float> out) { std::fill(out.begin(), out.end(), 0.0f); }

 private:
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
          taking = next() % runs_left < (wanted + run - 1) / run;
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

  // splitmix64 (Steele et al., OOPSLA 2014).
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9E37'79B9'7F4A'7C15u;
    z = (z ^ (z >> 30)) * 0xBF58'476D'1CE4'E5B9u;
    z = (z ^ (z >> 27)) * 0x94D0'49BB'1331'11EBu;
    return z ^ (z >> 31);
  }

  std::uint64_t state_ = 0;
};

struct random_selection {
  template <class Format>
  using arithmetic = random_arithmetic<Format>;
};

}  // namespace instinfer::flash
