#pragma once
// long because: one function for each command of the host.
// One drive of a cluster: an engine that carries out the host's commands.

#include <chrono>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/cluster/agreement.hpp"
#include "instinfer/cluster/commands.hpp"
#include "instinfer/cluster/merge_tree.hpp"
#include "instinfer/core/parallel.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/engine/attend_call.hpp"

namespace instinfer::cluster {

// Engine is instinfer::engine on any path and store, or flash::engine. A command that fails leaves
// the engine as it was, but for build, which keeps the heads that it has finished.
template <class Engine, Split S, parallel::Parallel Workers>
class drive {
  using base = computing_engine<Engine>;
  using format = typename base::format;
  using element = typename base::element;
  static constexpr bool saves =
      requires(const Engine& e, sequence seq, std::ostream& out) { e.save(seq, out); };

 public:
  // make(part) returns the engine. Throws bad_argument if its shape is not that of the part.
  template <class Make>
  drive(const drive_part& part, const S& split, const Workers& workers, Make&& make)
      : part_{part}, split_{split}, workers_{workers}, engine_{new Engine(make(part))} {
    const model_shape& shape = computing(*engine_).cache().shape();
    require(shape.layers == part.shape.layers && shape.q_heads == part.shape.q_heads &&
                shape.kv_heads == part.shape.kv_heads,
            [&] {
              const auto text = [](const model_shape& s) {
                return std::to_string(s.layers) + " layers, " + std::to_string(s.q_heads) +
                       " query heads, " + std::to_string(s.kv_heads) + " KV heads";
              };
              return "cluster: the drive's engine must have " + text(part.shape) + ", it has " +
                     text(shape);
            });
    split_rules<S, typename base::policy>::check(computing(*engine_).logits());
  }

  const Engine& engine() const { return *engine_; }

  // Carries out a command; its outcome replaces the content of `out`. Does not throw, but for memory
  // where other drives wait for rows().
  void execute(message& in, message& out) {
    const auto start = std::chrono::steady_clock::now();
    out.clear();
    out.put(outcome{});
    const auto what = in.take<command>();
    if (S::splits_tokens && what.what == operation::attend) {
      resize_scratch(rows_, what.queries * heads() * tree::row);
      tree::clear(rows_);
    }
    try {
      const outcome done = run(what, in, out);
      out.front<outcome>() = done;
      if (what.what != operation::undo) {
        last_ = what;
      }
    } catch (...) {
      const failure f = failure::current();
      tree::clear(rows_);
      out.clear();
      out.put(outcome{.failed = f.kind});
      f.put_to(out);
    }
    out.front<outcome>().busy_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  // Where tokens are split: the results of the last attend for the queries of the whole batch,
  // [queries, q_heads, tree::row]; over no tokens where the drive has none, or has failed.
  std::span<float> rows() { return rows_; }

 private:
  using tree = merge_tree<format::v_dim>;

  template <class Receipt>
  static outcome outcome_of(const Receipt& done) {
    outcome o{.traffic = done.traffic};
    if constexpr (requires { done.total_ns(); }) {
      o.modelled_ns = done.total_ns();
    }
    return o;
  }

  outcome run(const command& c, message& in, message& out) {
    switch (c.what) {
      case operation::open:
        return open(c.slot, [&] { return engine_->open(); });
      case operation::fork:
        return open(c.slot, [&] { return engine_->fork(local_.at(c.origin)); });
      case operation::append:
        return append(c, in);
      case operation::attend:
        return attend(c, in, out);
      case operation::build:
        if constexpr (requires { engine_->build(sequence{}, 0); }) {
          return outcome_of(engine_->build(local_.at(c.slot), c.layer));
        }
        break;
      case operation::reclaim:
        engine_->reclaim(local_.at(c.slot));
        return {};
      case operation::check_reclaim:
        engine_->check_reclaim(local_.at(c.slot), c.layers);
        return {};
      case operation::reclaim_range:
        engine_->reclaim(local_.at(c.slot), c.layers);
        return {};
      case operation::truncate:
        return outcome_of(engine_->truncate(local_.at(c.slot), range_of(c)));
      case operation::truncate_copy:
        return truncate_copy(c);
      case operation::save:
        return save(c, out);
      case operation::load:
        return load(c, in);
      case operation::undo:
        undo();
        return {};
      case operation::commit:
        engine_->reclaim(kept_);
        return {};
      case operation::close:
        break;
    }
    throw error("cluster: this engine does not know command " +
                std::to_string(static_cast<std::uint32_t>(c.what)));
  }

  // Takes back the last command, which has succeeded here.
  void undo() {
    sequence& seq = local_.at(last_.slot);
    const operation what = last_.what;
    if (what == operation::open || what == operation::fork) {
      engine_->reclaim(seq);
    } else if (what == operation::append) {
      const auto layer = static_cast<std::uint32_t>(last_.layer);
      engine_->truncate(seq, store::truncate_range{layer, layer + 1, before_});
    } else if (what == operation::truncate_copy) {
      engine_->reclaim(seq);
      seq = kept_;
    } else if (what == operation::load) {
      engine_->reclaim(seq);
      seq = engine_->open();
    }
  }

  template <class Open>
  outcome open(std::uint32_t slot, Open&& opened) {
    if (slot >= local_.size()) {
      local_.resize(slot + 1);
    }
    local_[slot] = opened();
    return {};
  }

  // Follow: k, v, index keys, each with its count.
  outcome append(const command& c, message& in) {
    const auto next = [&]<class T>(T) { return in.take<T>(in.take<std::uint64_t>()); };
    const std::span<const element> k = next(element{});
    const std::span<const element> v = next(element{});
    const std::span<const float> index_keys = next(float{});
    const sequence seq = local_.at(c.slot);
    before_ = engine_->positions(seq, c.layer);
    return outcome_of(engine_->append(seq, c.layer, k, v, index_keys));
  }

  // Follow: the requests. Results: for each, its output [queries, q_heads, v_dim], and log_sum_exp
  // [queries, q_heads] if it is asked for. Where tokens are split, they become rows() instead.
  outcome attend(const command& c, message& in, message& out) {
    lines_.clear();
    queries_.clear();
    std::size_t room = 0, sets = 0;
    for (std::uint32_t r = 0; r < c.requests; ++r) {
      const auto line = in.take<request_line>();
      const std::size_t rows = line.queries * heads();
      lines_.push_back(line);
      queries_.push_back({.q = in.take<float>(rows * static_cast<std::size_t>(format::k_dim)),
                          .index = {.queries = in.take<float>(line.index_values),
                                    .weights = in.take<float>(line.index_weights)},
                          .bias = in.take<float>(rows * line.bias_tokens),
                          .visible = in.take<index_run>(line.visible_runs)});
      room += message::rounded(rows * static_cast<std::size_t>(format::v_dim) * sizeof(float)) +
              message::rounded(rows * sizeof(float));
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
      add_requests(c.layer, lines_[r], queries_[r], results);
    }
    const outcome done = attend_batch(c.layer);
    for (std::size_t r = 0; S::splits_tokens && r < lines_.size(); ++r) {
      put_rows(lines_[r], results);
    }
    return done;
  }

  outcome attend_batch(int layer) {
    if (batch_.empty()) {
      return {};
    }
    if constexpr (requires { engine_->attend(batch_, layer, scratch_, workers_); }) {
      return outcome_of(engine_->attend(batch_, layer, scratch_, workers_));
    } else {
      return outcome_of(engine_->attend_batch(layer, batch_));
    }
  }

  // The results of a request, to where those of its queries merge.
  void put_rows(const request_line& line, message& results) {
    const std::size_t n = line.queries * heads();
    const std::span<const float> values = results.take<float>(n * (tree::row - 1));
    const std::span<const float> sums = results.take<float>(n);
    auto to = rows_.begin() + static_cast<std::ptrdiff_t>(line.first_query * heads() * tree::row);
    for (std::size_t i = 0; i < n; ++i) {
      const auto value = values.subspan(i * (tree::row - 1), tree::row - 1);
      to = std::copy(value.begin(), value.end(), to);
      *to++ = sums[i];
    }
  }

  struct query_input {
    std::span<const float> q;
    attention::index_query index;
    std::span<const float> bias;
    std::span<const index_run> visible;
  };

  // One request; but of several new tokens that lie on several drives, one for each query, which
  // hides this drive's tokens after the query's own.
  void add_requests(int layer, const request_line& line, const query_input& from, message& out) {
    const bool alone = S::splits_tokens && line.causal != 0 && line.queries > 1;
    const std::uint32_t parts = alone ? line.queries : 1;
    const std::size_t rows = line.queries / parts * heads();
    const std::span<float> results =
        out.room<float>(parts * rows * static_cast<std::size_t>(format::v_dim));
    const std::span<float> sums = S::splits_tokens || line.wants_log_sum_exp != 0
                                      ? out.room<float>(parts * rows)
                                      : std::span<float>{};
    for (std::uint32_t p = 0; p < parts; ++p) {
      attend_request r{
          .seq = local_.at(line.slot),
          .q = from.q.subspan(p * rows * format::k_dim, rows * format::k_dim),
          .out = results.subspan(p * rows * format::v_dim, rows * format::v_dim),
          .index = from.index,
          .log_sum_exp = sums.empty() ? sums : sums.subspan(p * rows, rows),
          .bias = from.bias.subspan(p * rows * line.bias_tokens, rows * line.bias_tokens),
          .causal = line.causal != 0};
      const std::uint64_t seen_of = mine(line.positions - (parts - 1 - p));
      if (line.has_visible != 0 || seen_of < mine(line.positions)) {
        index_set& seen = visible_[batch_.size()];
        const std::uint64_t from_position = computing(*engine_).cache().at(r.seq, layer).base();
        seen.clear();
        if (line.has_visible != 0) {
          add_runs(seen, from.visible, seen_of, from_position);
        } else {
          seen.add(0, static_cast<std::uint32_t>(seen_of - from_position));
        }
        r.visible = &seen;
      }
      batch_.push_back(r);
    }
  }

  // The positions of `runs` before `end`, as a layer that numbers its tokens from a position on.
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

  std::size_t heads() const { return static_cast<std::size_t>(part_.shape.q_heads); }
  std::uint64_t mine(std::uint64_t positions) const {
    return split_.tokens_of(positions, part_.drive, part_.drives);
  }

  static store::truncate_range range_of(const command& c) {
    return {c.layers.first_layer, c.layers.end_layer, c.tokens};
  }

  outcome truncate_copy(const command& c) {
    sequence& seq = local_.at(c.slot);
    const sequence copy = engine_->fork(seq);
    try {
      const outcome done = outcome_of(engine_->truncate(copy, range_of(c)));
      kept_ = std::exchange(seq, copy);
      return done;
    } catch (...) {
      engine_->reclaim(copy);
      throw;
    }
  }

  // Results: the bytes of the engine's file, as text.
  outcome save(const command& c, message& out) const {
    if constexpr (saves) {
      std::ostringstream file;
      engine_->save(local_.at(c.slot), file);
      out.put_text(file.view());
      return {};
    }
    throw error("cluster: this engine does not save");
  }

  // Follow: the positions that each layer must then have here; the bytes of the engine's file.
  outcome load(const command& c, message& in) {
    if constexpr (saves) {
      const auto layers = static_cast<std::size_t>(part_.shape.layers);
      const std::span<const std::uint64_t> positions = in.take<std::uint64_t>(layers);
      const std::span<const char> bytes = in.take<char>(c.bytes);
      std::istringstream file(std::string(bytes.begin(), bytes.end()));
      sequence& seq = local_.at(c.slot);
      const outcome done = outcome_of(engine_->load(seq, file));
      for (std::size_t l = 0; l < layers; ++l) {
        if (const std::uint64_t has = engine_->positions(seq, static_cast<int>(l));
            has != positions[l]) {
          engine_->reclaim(seq);
          seq = engine_->open();
          throw bad_file("load: layer " + std::to_string(l) + " of the part has " +
                         std::to_string(has) + " tokens, the file says " +
                         std::to_string(positions[l]));
        }
      }
      return done;
    }
    throw error("cluster: this engine does not load");
  }

  drive_part part_;
  S split_;
  Workers workers_;
  std::unique_ptr<Engine> engine_;
  std::vector<sequence> local_;  // the engine's sequence of each slot
  command last_;
  sequence kept_;             // the original of the last truncate_copy
  std::uint64_t before_ = 0;  // positions before the last append

  workspace<typename base::path, format> scratch_;
  std::vector<request_line> lines_;
  std::vector<query_input> queries_;
  std::vector<attend_request> batch_;
  std::vector<index_set> visible_;
  message to_merge_;
  std::vector<float> rows_;
};

}  // namespace instinfer::cluster
