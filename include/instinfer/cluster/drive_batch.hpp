#pragma once
// The part of a batch that one drive computes: its requests, and where their results go. It keeps
// its memory.

#include <algorithm>
#include <vector>

#include "instinfer/cluster/agreement.hpp"
#include "instinfer/cluster/commands.hpp"
#include "instinfer/cluster/merge_tree.hpp"
#include "instinfer/core/parallel.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/engine/attend_call.hpp"
#include "instinfer/engine/new_tokens.hpp"

namespace instinfer::cluster {

// What a call of a drive's engine has done.
template <class Receipt>
outcome outcome_of(const Receipt& done) {
  outcome o{.traffic = done.traffic};
  if constexpr (requires { done.total_ns(); }) {
    o.modelled_ns = done.total_ns();
  }
  return o;
}

template <class Engine, class S, parallel::Parallel Workers>
class drive_batch {
  using base = computing_engine<Engine>;
  using format = typename base::format;
  using tree = merge_tree<format::v_dim>;
  static constexpr auto k_dim = static_cast<std::size_t>(format::k_dim);
  static constexpr auto v_dim = static_cast<std::size_t>(format::v_dim);

 public:
  drive_batch(const drive_part& part, const S& split, const Workers& workers)
      : part_{part}, split_{split}, workers_{workers} {}

  // Where tokens are split: the results for the queries of the whole batch, [queries, q_heads,
  // tree::row]; over no tokens where the drive has none, or has failed.
  std::span<float> rows() { return rows_; }
  void begin(std::uint64_t queries) {
    resize_scratch(rows_, S::splits_tokens ? queries * heads() * tree::row : 0);
    clear_rows();
  }
  void clear_rows() { tree::clear(rows_); }

  // Takes the requests of a command, which point into `in`. sequence_of(slot) is the engine's.
  // Makes room for the results: for each request its output [queries, q_heads, v_dim], and
  // log_sum_exp [queries, q_heads] if it is asked for, or if results merge.
  void take(const command& c, message& in, message& out, const Engine& engine, auto&& sequence_of) {
    lines_.clear();
    inputs_.clear();
    std::size_t room = 0, sets = 0;
    for (std::uint32_t r = 0; r < c.requests; ++r) {
      const auto line = in.take<request_line>();
      const std::size_t n = line.queries * heads();
      lines_.push_back(line);
      inputs_.push_back({.q = in.take<float>(n * k_dim),
                         .index = {.queries = in.take<float>(line.index_values),
                                   .weights = in.take<float>(line.index_weights)},
                         .bias = in.take<float>(n * line.bias_tokens),
                         .visible = in.take<index_run>(line.visible_runs)});
      room += message::rounded(n * v_dim * sizeof(float)) + message::rounded(n * sizeof(float));
      sets += line.queries;
    }
    message& results = S::splits_tokens ? to_merge_ : out;
    if (S::splits_tokens) {
      results.clear();
    }
    results.reserve(room);
    if (visible_.size() < sets) {
      visible_.resize(sets);
    }
    batch_.clear();
    for (std::size_t r = 0; r < lines_.size(); ++r) {
      const sequence seq = sequence_of(lines_[r].slot);
      add(seq, lines_[r], inputs_[r], computing(engine).cache().at(seq, c.layer).base(), results);
    }
  }

  // Not of a batch, but by the same workers.
  outcome prefill(Engine& engine, sequence seq, int layer,
                  const new_tokens<typename base::element>& prompt, std::span<const float> q,
                  std::span<float> out) {
    if constexpr (requires { engine.prefill(seq, layer, prompt, q, out, scratch_, workers_); }) {
      return outcome_of(engine.prefill(seq, layer, prompt, q, out, scratch_, workers_));
    } else {
      return outcome_of(engine.prefill(seq, layer, prompt.k, prompt.v, q, out));
    }
  }

  outcome attend(Engine& engine, int layer) {
    if (batch_.empty()) {
      return {};
    }
    const outcome done = computed(engine, layer);
    for (std::size_t r = 0; S::splits_tokens && r < lines_.size(); ++r) {
      put_rows(lines_[r]);
    }
    return done;
  }

 private:
  struct input {
    std::span<const float> q;
    attention::index_query index;
    std::span<const float> bias;
    std::span<const index_run> visible;
  };

  std::size_t heads() const { return static_cast<std::size_t>(part_.shape.q_heads); }
  std::uint64_t mine(std::uint64_t positions) const {
    return split_.tokens_of(positions, part_.drive, part_.drives);
  }

  // One request; but of several new tokens that lie on several drives, one for each query, which
  // hides this drive's tokens after the query's own. The layer numbers its tokens from position
  // `numbered_from` on.
  void add(sequence seq, const request_line& line, const input& from, std::uint64_t numbered_from,
           message& out) {
    const bool alone = S::splits_tokens && line.causal != 0 && line.queries > 1;
    const std::uint32_t parts = alone ? line.queries : 1;
    const std::size_t rows = line.queries / parts * heads();
    const std::span<float> results = out.room<float>(parts * rows * v_dim);
    const std::span<float> sums = S::splits_tokens || line.wants_log_sum_exp != 0
                                      ? out.room<float>(parts * rows)
                                      : std::span<float>{};
    for (std::uint32_t p = 0; p < parts; ++p) {
      attend_request r{
          .seq = seq,
          .q = from.q.subspan(p * rows * k_dim, rows * k_dim),
          .out = results.subspan(p * rows * v_dim, rows * v_dim),
          .index = from.index.of(p, parts),
          .log_sum_exp = sums.empty() ? sums : sums.subspan(p * rows, rows),
          .bias = from.bias.subspan(p * rows * line.bias_tokens, rows * line.bias_tokens),
          .causal = line.causal != 0};
      const std::uint64_t end = mine(line.positions - (parts - 1 - p));
      if (line.has_visible != 0 || end < mine(line.positions)) {
        index_set& seen = visible_[batch_.size()];
        seen.clear();
        if (line.has_visible != 0) {
          add_runs(seen, from.visible, end, numbered_from);
        } else {
          seen.add(0, static_cast<std::uint32_t>(end - numbered_from));
        }
        r.visible = &seen;
      }
      batch_.push_back(r);
    }
  }

  // The positions of `runs` before `end`.
  static void add_runs(index_set& seen, std::span<const index_run> runs, std::uint64_t end,
                       std::uint64_t numbered_from) {
    for (const index_run& run : runs) {
      const std::uint64_t first = std::max<std::uint64_t>(run.first, numbered_from);
      const std::uint64_t last = std::min<std::uint64_t>(run.last, end);
      if (first < last) {
        seen.add(static_cast<std::uint32_t>(first - numbered_from),
                 static_cast<std::uint32_t>(last - numbered_from));
      }
    }
  }

  outcome computed(Engine& engine, int layer) {
    if constexpr (requires { engine.attend(batch_, layer, scratch_, workers_); }) {
      return outcome_of(engine.attend(batch_, layer, scratch_, workers_));
    } else {
      return outcome_of(engine.attend_batch(layer, batch_));
    }
  }

  // The results of a request, to where those of its queries merge.
  void put_rows(const request_line& line) {
    const std::size_t n = line.queries * heads();
    const std::span<const float> values = to_merge_.take<float>(n * v_dim);
    const std::span<const float> sums = to_merge_.take<float>(n);
    auto to = rows_.begin() + static_cast<std::ptrdiff_t>(line.first_query * heads() * tree::row);
    for (std::size_t i = 0; i < n; ++i) {
      const auto value = values.subspan(i * v_dim, v_dim);
      to = std::copy(value.begin(), value.end(), to);
      *to++ = sums[i];
    }
  }

  drive_part part_;
  S split_;
  Workers workers_;
  workspace<typename base::path, format> scratch_;
  std::vector<request_line> lines_;
  std::vector<input> inputs_;
  std::vector<attend_request> batch_;
  std::vector<index_set> visible_;
  message to_merge_;
  std::vector<float> rows_;
};

}  // namespace instinfer::cluster
