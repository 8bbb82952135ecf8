#pragma once
// One drive of a cluster: an engine that carries out the host's commands.

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/cluster/agreement.hpp"
#include "instinfer/cluster/commands.hpp"
#include "instinfer/cluster/drive_batch.hpp"
#include "instinfer/cluster/message_stream.hpp"
#include "instinfer/core/parallel.hpp"
#include "instinfer/engine/new_tokens.hpp"

namespace instinfer::cluster {

// Engine is instinfer::engine on any path and store, or flash::engine. A command that fails leaves
// the engine as it was, but for build, which keeps the heads that it has finished.
template <class Engine, Split S, parallel::Parallel Workers>
class drive {
  using base = computing_engine<Engine>;
  using format = typename base::format;
  using element = typename base::element;
  using policy = typename base::policy;
  static constexpr bool saves =
      requires(const Engine& e, sequence seq, std::ostream& out) { e.save(seq, out); };
  // An index cannot give up the tokens that it holds.
  static constexpr bool indexes = requires { typename policy::indexed_by; };

 public:
  // make(part) returns the engine. Throws bad_argument if its shape is not that of the part.
  template <class Make>
  drive(const drive_part& part, const S& split, const Workers& workers, Make&& make)
      : part_{part}, engine_{new Engine(make(part))}, batch_{part, split, workers} {
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

  // Carries out a command; its outcome replaces the content of `out`. Does not throw, but for
  // memory where other drives wait for rows().
  void execute(message& in, message& out) {
    const auto start = std::chrono::steady_clock::now();
    out.clear();
    out.put(outcome{});
    const auto what = in.take<command>();
    if (what.what == operation::attend) {
      batch_.begin(what.queries);
    }
    if (what.what != operation::undo) {
      before_prefill_.reset();
    }
    try {
      const outcome done = run(what, in, out);
      out.front<outcome>() = done;
      if (what.what != operation::undo) {
        last_ = what;
      }
    } catch (...) {
      const failure f = failure::current();
      batch_.clear_rows();
      out.clear();
      out.put(outcome{.failed = f.kind});
      f.put_to(out);
    }
    out.front<outcome>().busy_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  // Where tokens are split: the results of the last attend, see drive_batch.
  std::span<float> rows() { return batch_.rows(); }

 private:
  outcome run(const command& c, message& in, message& out) {
    switch (c.what) {
      case operation::open:
        return open(c.slot, [&] { return engine_->open(); });
      case operation::fork:
        return open(c.slot, [&] { return engine_->fork(local_.at(c.origin)); });
      case operation::append:
        return append(c, in);
      case operation::attend:
        batch_.take(c, in, out, *engine_, [&](std::uint32_t slot) { return local_.at(slot); });
        return batch_.attend(*engine_, c.layer);
      case operation::prefill:
        return prefill(c, in, out);
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
        return on_copy(
            c, [&](sequence copy) { return outcome_of(engine_->truncate(copy, range_of(c))); });
      case operation::save:
        return save(c, out);
      case operation::load:
        return load(c, in);
      case operation::set_policy:
        if constexpr (travels<policy>) {
          settings_before_ = computing(*engine_).attention();
          engine_->set_policy(in.take<policy>());
          return {};
        }
        break;
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
    const operation what = last_.what;
    if (what == operation::set_policy) {
      engine_->set_policy(settings_before_);
      return;
    }
    sequence& seq = local_.at(last_.slot);
    if (what == operation::open || what == operation::fork) {
      engine_->reclaim(seq);
    } else if (what == operation::append) {
      const auto layer = static_cast<std::uint32_t>(last_.layer);
      engine_->truncate(seq, store::truncate_range{layer, layer + 1, before_});
    } else if (what == operation::truncate_copy || (what == operation::prefill && indexes)) {
      engine_->reclaim(seq);
      seq = kept_;
    } else if (what == operation::prefill) {
      before_prefill_->put_back(*engine_);
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

  // Rows after their count.
  template <class T>
  static std::span<const T> take_rows(message& in) {
    return in.take<T>(in.take<std::uint64_t>());
  }

  // Follow: k, v, index keys, each with its count.
  outcome append(const command& c, message& in) {
    const std::span<const element> k = take_rows<element>(in);
    const std::span<const element> v = take_rows<element>(in);
    const std::span<const float> index_keys = take_rows<float>(in);
    const sequence seq = local_.at(c.slot);
    before_ = engine_->positions(seq, c.layer);
    return outcome_of(engine_->append(seq, c.layer, k, v, index_keys));
  }

  // Follow: k, v, each with its count; q [queries, q_heads, k_dim]. Results, if wanted: out
  // [queries, q_heads, v_dim].
  outcome prefill(const command& c, message& in, message& out) {
    const std::span<const element> k = take_rows<element>(in);
    const std::span<const element> v = take_rows<element>(in);
    const std::size_t rows = c.queries * static_cast<std::size_t>(part_.shape.q_heads);
    const auto q = in.take<float>(rows * static_cast<std::size_t>(format::k_dim));
    const std::span<float> results =
        c.wants_out != 0 ? out.room<float>(rows * static_cast<std::size_t>(format::v_dim))
                         : std::span<float>{};
    const auto to = [&](sequence seq) {
      return batch_.prefill(*engine_, seq, c.layer, {k, v}, q, results);
    };
    if constexpr (indexes) {
      return on_copy(c, to);
    } else {
      const sequence seq = local_.at(c.slot);
      before_prefill_.emplace(computing(*engine_).cache(), seq, c.layer);
      return to(seq);
    }
  }

  static store::truncate_range range_of(const command& c) {
    return {c.layers.first_layer, c.layers.end_layer, c.tokens};
  }

  // change(sequence) on a fork of the command's sequence, which then takes its place.
  outcome on_copy(const command& c, auto&& change) {
    sequence& seq = local_.at(c.slot);
    const sequence copy = engine_->fork(seq);
    try {
      const outcome done = change(copy);
      kept_ = std::exchange(seq, copy);
      return done;
    } catch (...) {
      engine_->reclaim(copy);
      throw;
    }
  }

  // Results: the engine's file.
  outcome save(const command& c, message& out) const {
    if constexpr (saves) {
      message_writer file(out);
      engine_->save(local_.at(c.slot), file);
      return {};
    }
    throw error("cluster: this engine does not save");
  }

  // Follows: the engine's file.
  outcome load(const command& c, message& in) {
    if constexpr (saves) {
      message_reader file(in);
      return outcome_of(engine_->load(local_.at(c.slot), file));
    }
    throw error("cluster: this engine does not load");
  }

  drive_part part_;
  std::unique_ptr<Engine> engine_;
  std::vector<sequence> local_;  // the engine's sequence of each slot
  command last_;
  sequence kept_;             // the original of the last fork of on_copy
  std::uint64_t before_ = 0;  // positions before the last append
  std::optional<layer_before<typename base::cache_type>> before_prefill_;
  policy settings_before_;  // before the last set_policy

  drive_batch<Engine, S, Workers> batch_;
};

}  // namespace instinfer::cluster
