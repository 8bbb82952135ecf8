#pragma once
// One drive of a cluster: an engine that carries out the host's commands.

#include <chrono>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/cluster/agreement.hpp"
#include "instinfer/cluster/commands.hpp"
#include "instinfer/cluster/drive_batch.hpp"
#include "instinfer/core/parallel.hpp"

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
  std::unique_ptr<Engine> engine_;
  std::vector<sequence> local_;  // the engine's sequence of each slot
  command last_;
  sequence kept_;             // the original of the last truncate_copy
  std::uint64_t before_ = 0;  // positions before the last append

  drive_batch<Engine, S, Workers> batch_;
};

}  // namespace instinfer::cluster
