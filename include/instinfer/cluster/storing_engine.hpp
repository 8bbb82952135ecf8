#pragma once
// The calls of an engine over many drives that change or tell what it stores.

#include <istream>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "instinfer/cluster/engine_base.hpp"
#include "instinfer/cluster/file.hpp"
#include "instinfer/cluster/slices.hpp"
#include "instinfer/store/sequences/value_checks.hpp"

namespace instinfer::cluster {

// cluster/engine.hpp says how it is used.
template <class Engine, class S, parallel::Parallel Workers>
class storing_engine : public engine_base<Engine, S, Workers> {
  using base = engine_base<Engine, S, Workers>;

 public:
  using base::shape;
  using typename base::element;
  using typename base::format;
  using typename base::policy;
  using typename base::summaries;

  using base::base;

  // The calls of one engine, for rank 0. They throw bad_argument on other ranks, and between post
  // and wait.
  sequence open() {
    begin("open");
    return add({.what = operation::open}, std::vector<layer_tokens>(at(shape().layers)),
               placed_.next_home());
  }
  sequence fork(sequence seq) {
    begin("fork");
    std::vector<layer_tokens> layers = placed_.layers(seq);
    return add({.what = operation::fork, .origin = seq.slot}, std::move(layers), placed_.home(seq));
  }

  receipt append(sequence seq, int layer, std::span<const element> k,
                 std::span<const element> v = {}, std::span<const float> index_keys = {}) {
    begin("append");
    layer_tokens& to = placed_.layer(seq, layer);
    const std::uint64_t count = store::storable_tokens<format>(k, v, shape().kv_heads);
    attention::check_index_keys<summaries>(index_keys, count,
                                           format::is_padded ? 0 : format::k_dim);
    const int index_dim = count == 0 ? 0 : static_cast<int>(index_keys.size() / count);
    placed_.for_each_holder(seq.slot, [&](const drive_part& part) {
      const token_slice<S> mine{placed_.split(), part, to.positions, count};
      if (mine.size() > 0) {
        message& m = calls_.command_to(
            part.drive, {.what = operation::append, .slot = seq.slot, .layer = layer});
        const auto [first, heads] = std::pair(part.heads.first, part.heads.size());
        put_rows(m, k, mine, shape().kv_heads, first, heads, format::k_dim);
        put_rows(m, v, mine, shape().kv_heads, first, heads, format::v_dim);
        put_rows(m, index_keys, mine, 1, 0, 1, index_dim);
      }
    });
    const receipt done = calls_.call(true);
    to.positions += count;
    return done;
  }

  receipt build(sequence seq, int layer)
    requires requires(Engine& e) { e.build(seq, layer); }
  {
    begin("build");
    placed_.layer(seq, layer);
    command_all({.what = operation::build, .slot = seq.slot, .layer = layer});
    return calls_.call(false);
  }

  // Frees a sequence, or the oldest tokens of some of its layers.
  void reclaim(sequence seq) {
    begin("reclaim");
    placed_.layers(seq);
    command_all({.what = operation::reclaim, .slot = seq.slot});
    calls_.call(false);
    placed_.remove(seq);
  }
  void reclaim(sequence seq, const store::reclaim_range& range) {
    begin("reclaim");
    const auto layers =
        placed_.layers(seq, "reclaim", range, [&](std::uint32_t number, const layer_tokens& l) {
          store::require_reclaimable(number, l.positions, range.tokens_before, true);
        });
    for (const operation what : {operation::check_reclaim, operation::reclaim_range}) {
      calls_.begin();
      placed_.for_each_holder(seq.slot, [&](const drive_part& part) {
        const store::reclaim_range mine{range.first_layer, placed_.end_of(range),
                                        placed_.tokens_of(part, range.tokens_before)};
        calls_.command_to(part.drive, {.what = what, .slot = seq.slot, .layers = mine});
      });
      calls_.call(false);
    }
    for (layer_tokens& l : layers) {
      l.first = std::max(l.first, range.tokens_before);
    }
  }

  // Takes back the newest tokens. On several drives it works on forks, so that a drive that fails
  // leaves all as they were; a fork copies open pages, summaries and page tables.
  receipt truncate(sequence seq, std::uint64_t tokens) {
    return truncate(seq, store::truncate_range{.tokens = tokens});
  }
  receipt truncate(sequence seq, const store::truncate_range& range) {
    begin("truncate");
    const auto layers =
        placed_.layers(seq, "truncate", range, [&](std::uint32_t number, const layer_tokens& l) {
          store::require_truncatable(number, l.first, l.positions, range.tokens);
        });
    const bool many = placed_.holders(seq.slot) > 1;
    const operation what = many ? operation::truncate_copy : operation::truncate;
    placed_.for_each_holder(seq.slot, [&](const drive_part& part) {
      calls_.command_to(part.drive, {.what = what,
                                     .slot = seq.slot,
                                     .layers = {range.first_layer, placed_.end_of(range), 0},
                                     .tokens = placed_.tokens_of(part, range.tokens)});
    });
    const receipt done = calls_.call(true);
    if (many) {
      calls_.begin();
      command_all({.what = operation::commit, .slot = seq.slot});
      calls_.call(false);
    }
    for (layer_tokens& l : layers) {
      l.positions = range.tokens;
    }
    return done;
  }

  // Writes a sequence to a binary stream, and loads it into an open, empty sequence. The file is
  // that of one engine, so that it loads on one engine, and on a cluster of any split and number of
  // drives (cluster/file.hpp). Splits by tokens need blocks of a multiple of the tokens of a page,
  // and throw bad_argument otherwise. Throws what one engine throws; a load that throws changes
  // nothing.
  void save(sequence seq, std::ostream& out, std::string_view model = {})
    requires requires(const Engine& e) { e.save(seq, out); }
  {
    begin("save");
    const std::vector<layer_tokens>& layers = placed_.layers(seq);
    const split_file file = file_of(seq);
    file.require_whole_pages("save", layers);
    command_all({.what = operation::save, .slot = seq.slot});
    calls_.call(false);
    std::vector<message*> parts;
    for (const int d : calls_.asked()) {
      parts.push_back(&calls_.results_of(d));
    }
    file.join(layers, model, parts, out);
  }
  receipt load(sequence seq, std::istream& in, std::string_view model = {})
    requires requires(Engine& e) { e.load(seq, in); }
  {
    begin("load");
    std::vector<layer_tokens>& layers = placed_.layers(seq);
    for (const layer_tokens& l : layers) {
      require(l.positions == 0, [&] {
        return "load: the sequence has " + std::to_string(l.positions) +
               " tokens already; open another one";
      });
    }
    std::vector<message*> parts;
    placed_.for_each_holder(seq.slot, [&](const drive_part& part) {
      parts.push_back(&calls_.command_to(part.drive, {.what = operation::load, .slot = seq.slot}));
    });
    std::vector<layer_tokens> loaded = file_of(seq).cut(in, model, parts);
    const receipt done = calls_.call(true);
    layers = std::move(loaded);
    return done;
  }

  // Other settings of the policy, on all drives, for all later calls. Throws bad_argument as one
  // engine, and all drives then keep the old settings.
  void set_policy(const policy& attention) {
    begin("set_policy");
    for (const drive_part& part : placed_.parts()) {
      calls_.command_to(part.drive, {.what = operation::set_policy}).put(travelling(attention));
    }
    calls_.call(true);
    attention_ = attention;
  }
  // For the host.
  const policy& attention() const { return travelling(attention_); }

  // Live tokens of a layer, and tokens ever appended without those taken back.
  std::uint32_t tokens(sequence seq, int layer) const {
    const layer_tokens& of = placed_.layer(seq, layer);
    return static_cast<std::uint32_t>(of.positions - of.first);
  }
  std::uint64_t positions(sequence seq, int layer) const {
    return placed_.layer(seq, layer).positions;
  }

 protected:
  using base::begin;
  using base::calls_;
  using base::command_all;
  using base::placed_;

 private:
  using base::attention_;
  using split_file = cluster::split_file<typename base::base_engine, S>;

  static std::size_t at(int i) { return static_cast<std::size_t>(i); }

  sequence add(command c, std::vector<layer_tokens> layers, std::uint32_t home) {
    const sequence seq = placed_.add(std::move(layers), home);
    c.slot = seq.slot;
    try {
      command_all(c);
      calls_.call(true);
    } catch (...) {
      placed_.remove(seq);
      throw;
    }
    return seq;
  }

  split_file file_of(sequence seq) const {
    std::vector<drive_part> parts;
    placed_.for_each_holder(seq.slot, [&](const drive_part& part) { parts.push_back(part); });
    return {placed_.split(), shape(), base::tiles_, std::move(parts)};
  }
  static const policy& travelling(const policy& settings) {
    static_assert(
        travels<policy>,
        "instinfer: settings go from rank to rank as bytes, but this policy is not trivially copyable, see cluster/agreement.hpp");
    return settings;
  }
};

}  // namespace instinfer::cluster
