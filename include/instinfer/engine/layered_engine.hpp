#pragma once
// long because: it has the calls of every engine, each for a kind of layer.
// An engine for models whose layers differ in heads, head sizes or windows: one engine for each
// kind of layer, on one drive, with one budget and one handle a sequence.

#include <array>
#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "instinfer/core/parallel.hpp"
#include "instinfer/engine/attend_call.hpp"
#include "instinfer/engine/by_kind.hpp"
#include "instinfer/engine/layered_state.hpp"
#include "instinfer/engine/new_tokens.hpp"
#include "instinfer/store/pages/shared_drive.hpp"
#include "instinfer/store/sequences/capacity_checks.hpp"
#include "instinfer/store/sequences/commit.hpp"
#include "instinfer/store/sequences/sequence_slots.hpp"

namespace instinfer {

// What the layers of one kind have in common, besides the format of their rows.
struct layer_kind {
  int q_heads = 1;
  int kv_heads = 1;
  logit_rule logits{};
};

// EngineOf<Format, Store> is the engine of a kind. Pages is the store that all kinds share. Formats
// has one format a kind; kinds that differ only in heads or logit rules repeat it, and compile
// nothing twice. Layers keep the model's numbers. Five layers with windows to each full one:
//
//   template <class Format, class Store>
//   using my_engine = engine<insta, Format, cpu::path, Store>;
//   layered_engine<my_engine, store::memory, kv_format<bf16, 256>, kv_format<bf16, 512>> gemma(
//       {0, 0, 0, 0, 0, 1}, {{{8, 4, {.window = 512}}, {8, 1}}}, capacity, channels);
template <template <class, class> class EngineOf, class Pages, class... Formats>
class layered_engine {
  template <class Format>
  using engine_of = EngineOf<Format, store::drive_share<Pages>>;
  using first_engine = engine_of<std::tuple_element_t<0, std::tuple<Formats...>>>;

 public:
  static constexpr std::size_t kinds = sizeof...(Formats);
  using element = typename first_engine::element;
  using policy = typename first_engine::policy;
  using layout = typename first_engine::design_type::layout_policy;
  static_assert((std::is_same_v<typename Formats::element, element> && ...),
                "instinfer: all kinds of layers take K and V of one element type");

  // kind_of_layer[l] is the kind of layer l. `args` go to the engine of each kind, after its logit
  // rule. Throws bad_argument for a layer of a kind that there is not, and as the engines do.
  template <class... Args>
  layered_engine(std::vector<std::uint32_t> kind_of_layer,
                 const std::array<layer_kind, kinds>& of_kind, const store::capacity& capacity,
                 std::uint32_t channels, const policy& attention = {}, const Args&... args)
      : layered_engine{
            std::move(kind_of_layer),
            of_kind,
            capacity,
            Pages{channels, store::pages_per_channel(capacity, layout::page_bytes, channels),
                  layout::page_bytes},
            attention,
            args...} {}
  // The same over a given store, a real drive for example; it replaces `capacity.bytes`. A drive
  // that was committed is reopened: throws bad_file if it has another cache.
  template <class... Args>
  layered_engine(std::vector<std::uint32_t> kind_of_layer,
                 const std::array<layer_kind, kinds>& of_kind, const store::capacity& capacity,
                 Pages pages, const policy& attention = {}, const Args&... args)
      : kind_of_layer_{(check_kinds(kind_of_layer), std::move(kind_of_layer))},
        drive_{std::move(pages), capacity.buffer_bytes},
        engines_{engines::with_kinds([&](auto... kind) {
          return std::tuple{engine_of<Formats>{
              model_shape{layers(), of_kind[kind].q_heads, of_kind[kind].kv_heads}, capacity,
              store::drive_share<Pages>{drive_}, attention, of_kind[kind].logits, args...}...};
        })} {
    if constexpr (store::LastingStore<Pages>) {  // engines on modelled drives have no such store
      if constexpr ((store::savable<typename engine_of<Formats>::summaries> && ...)) {
        if (drive_.pages.to_reopen()) {
          drive_.pages.reopen([&](auto& in) { read_state(in); });
        }
      }
    }
  }
  // Its engines point to its drive.
  layered_engine(const layered_engine&) = delete;
  layered_engine& operator=(const layered_engine&) = delete;

  int layers() const { return static_cast<int>(kind_of_layer_.size()); }
  // Throws bad_argument.
  std::uint32_t kind_of(int layer) const {
    store::require_layer(layer, layers());
    return kind_of_layer_[static_cast<std::size_t>(layer)];
  }

  // As those of an engine (engine/engine_base.hpp). A commit has the layers of all kinds.
  std::vector<sequence> sequences() const { return sequences_.open_ones(); }
  void commit()
    requires store::LastingStore<Pages>
  {
    drive_.pages.commit([&](auto& out) { write_state(out); });
  }

  // The calls of an engine (engine/engine.hpp), each for a layer of the model.
  sequence open() {
    sequences_.reserve();
    return sequences_.take(in_all_kinds([](auto& engine, auto) { return engine.open(); }));
  }

  auto append(sequence seq, int layer, std::span<const element> k, std::span<const element> v = {},
              std::span<const float> index_keys = {}) {
    return at(layer, [&](auto& engine, auto kind) {
      return engine.append(parts_of(seq)[kind], layer, k, v, index_keys);
    });
  }
  auto append_count(sequence seq, int layer, std::uint64_t count)
    requires(!Pages::holds_data)
  {
    return at(layer, [&](auto& engine, auto kind) {
      return engine.append_count(parts_of(seq)[kind], layer, count);
    });
  }
  auto build(sequence seq, int layer)
    requires requires(first_engine& e) { e.build(seq, layer); }
  {
    return at(layer,
              [&](auto& engine, auto kind) { return engine.build(parts_of(seq)[kind], layer); });
  }

  auto prefill(sequence seq, int layer, std::span<const element> k, std::span<const element> v = {},
               std::span<const float> q = {}, std::span<float> out = {}) {
    return at(layer, [&](auto& engine, auto kind) {
      return engine.prefill(parts_of(seq)[kind], layer, k, v, q, out);
    });
  }
  auto decode(sequence seq, int layer, std::span<const element> k, std::span<const element> v,
              std::span<const float> q, std::span<float> out) {
    return at(layer, [&](auto& engine, auto kind) {
      return engine.decode(parts_of(seq)[kind], layer, k, v, q, out);
    });
  }

  // q [q_heads, k_dim] and out [q_heads, v_dim] of the layer's kind.
  auto attend(sequence seq, int layer, std::span<const float> q, std::span<float> out) {
    return at(layer, [&](auto& engine, auto kind) {
      return engine.attend(parts_of(seq)[kind], layer, q, out);
    });
  }
  // A batch on a compute path, with a workspace for each kind.
  struct scratch {
    std::tuple<typename engine_of<Formats>::scratch...> of_kind;
    std::vector<attend_request> requests;
  };
  template <parallel::Parallel P, class Watch = no_observer>
  receipt attend(std::span<const attend_request> batch, int layer, scratch& work, const P& workers,
                 Watch&& watch = {}) const {
    return at(layer, [&](auto& engine, auto kind) {
      to_kind(batch, kind, work.requests);
      return engine.attend(work.requests, layer, std::get<kind>(work.of_kind), workers, watch);
    });
  }
  template <parallel::Parallel P, class Watch = no_observer>
  receipt decode(std::span<const new_tokens<element>> tokens, std::span<const attend_request> batch,
                 int layer, scratch& work, const P& workers, Watch&& watch = {}) {
    return at(layer, [&](auto& engine, auto kind) {
      to_kind(batch, kind, work.requests);
      return engine.decode(tokens, work.requests, layer, std::get<kind>(work.of_kind), workers,
                           watch);
    });
  }
  // A batch on the flash path.
  auto attend_batch(int layer, std::span<const attend_request> batch)
    requires requires(first_engine& e) { e.attend_batch(layer, batch); }
  {
    return at(layer, [&](auto& engine, auto kind) {
      to_kind(batch, kind, requests_);
      return engine.attend_batch(layer, requests_);
    });
  }

  // A sequence with the same tokens in all layers. If one kind cannot, none has the copy.
  sequence fork(sequence seq) {
    sequences_.reserve();
    return sequences_.take(
        in_all_kinds([&](auto& engine, auto kind) { return engine.fork(parts_of(seq)[kind]); }));
  }
  void reclaim(sequence seq) {
    give_back(parts_of(seq));
    sequences_.give_back(seq);
  }
  void reclaim(sequence seq, const store::reclaim_range& range) {
    each_layer(seq, range,
               [](auto& engine, sequence part, auto of) { engine.check_reclaim(part, of); });
    each_layer(seq, range, [](auto& engine, sequence part, auto of) { engine.reclaim(part, of); });
  }
  // Layer by layer. Returns the receipt of each. If memory or the group buffer runs out on the way,
  // the layers before are cut already, and a further call cuts the others.
  auto truncate(sequence seq, const store::truncate_range& range) {
    each_layer(seq, range,
               [](auto& engine, sequence part, auto of) { engine.check_truncate(part, of); });
    std::vector<decltype(std::declval<first_engine&>().truncate(seq, range))> receipts;
    receipts.reserve(kind_of_layer_.size());
    each_layer(seq, range, [&](auto& engine, sequence part, auto of) {
      receipts.push_back(engine.truncate(part, of));
    });
    return receipts;
  }
  auto truncate(sequence seq, std::uint64_t tokens) {
    return truncate(seq, store::truncate_range{.tokens = tokens});
  }

  // In all kinds, or in none.
  const policy& attention() const { return engines_.at(0, attention_of); }
  void set_policy(const policy& attention) {
    const policy old = this->attention();
    try {
      engines_.for_each([&](auto& engine, auto) { engine.set_policy(attention); });
    } catch (...) {
      engines_.for_each([&](auto& engine, auto) { engine.set_policy(old); });
      throw;
    }
  }

  std::uint32_t tokens(sequence seq, int layer) const {
    return at(layer,
              [&](auto& engine, auto kind) { return engine.tokens(parts_of(seq)[kind], layer); });
  }
  std::uint64_t positions(sequence seq, int layer) const {
    return at(layer, [&](auto& engine, auto kind) {
      return engine.positions(parts_of(seq)[kind], layer);
    });
  }
  std::uint64_t numbered_from(sequence seq, int layer) const {
    return at(layer, [&](auto& engine, auto kind) {
      return engine.numbered_from(parts_of(seq)[kind], layer);
    });
  }

  // The parts of all kinds one after the other (store/sequences/cache_file.hpp).
  void save(sequence seq, std::ostream& out, std::string_view model = {}) const
    requires Pages::holds_data
  {
    const sequence_parts& parts = parts_of(seq);
    engines_.for_each([&](auto& engine, auto kind) { engine.save(parts[kind], out, model); });
  }
  // Into an open, empty sequence of an engine with the same kinds of layers. Returns the receipt of
  // each kind. Throws as an engine's load, and bad_file for a layer of another kind. It then leaves
  // the sequence as it was.
  auto load(sequence seq, std::istream& in, std::string_view model = {})
    requires Pages::holds_data
  {
    const sequence_parts& empty = parts_of(seq);
    engines_.for_each([&](auto& engine, auto kind) { engine.check_load(empty[kind]); });
    std::array<decltype(std::declval<first_engine&>().load(seq, in, model)), kinds> receipts;
    sequence_parts loaded = in_all_kinds([&](auto& engine, auto kind) {
      const sequence part = engine.open();
      try {
        receipts[kind] = engine.load(part, in, model);
        require_own_layers(engine, part, kind);
      } catch (...) {
        engine.reclaim(part);
        throw;
      }
      return part;
    });
    std::swap(sequences_.at(seq), loaded);
    give_back(loaded);
    return receipts;
  }

  // The store under all kinds.
  const Pages& pages() const { return drive_.pages; }

 private:
  static constexpr auto attention_of = [](auto& engine, auto) -> const policy& {
    return engine.attention();
  };
  using engines = by_kind<engine_of<Formats>...>;
  using sequence_parts = std::vector<sequence>;  // the handle in each kind's engine

  // The handles that f(engine, kind) opens. If it throws, none is open.
  template <class F>
  sequence_parts in_all_kinds(F&& f) {
    sequence_parts parts;
    parts.reserve(kinds);
    try {
      engines_.for_each([&](auto& engine, auto kind) { parts.push_back(f(engine, kind)); });
    } catch (...) {
      give_back(parts);
      throw;
    }
    return parts;
  }
  void give_back(const sequence_parts& parts) {
    engines_.for_each([&](auto& engine, auto kind) {
      if (kind < parts.size()) {
        engine.reclaim(parts[kind]);
      }
    });
  }
  template <class E>
  void require_own_layers(const E& engine, sequence part, std::size_t kind) const {
    for (int l = 0; l < layers(); ++l) {
      require<bad_file>(kind_of(l) == kind || engine.positions(part, l) == 0, [&] {
        return "load: layer " + std::to_string(l) + " of the file is of kind " +
               std::to_string(kind) + ", the engine's of kind " + std::to_string(kind_of(l));
      });
    }
  }
  // The engine's own state, and then that of each kind.
  template <class Out>
  void write_state(Out& out) const {
    const std::string& name = drive_.pages.name();
    layered_state own;
    own.layers = layered_state::text(kind_of_layer_);
    own.slots = sequences_.states();
    for (const sequence seq : sequences()) {
      for (const sequence part : parts_of(seq)) {
        own.parts.push_back(part.slot);
      }
    }
    own.write(out);
    engines_.for_each([&](auto& engine, auto) { engine.write_state(name, out); });
  }
  template <class In>
  void read_state(In& in) {
    const std::string& name = drive_.pages.name();
    layered_state own;
    own.read(in, layered_state::text(kind_of_layer_));
    store::page_owners owners(drive_.pages.capacity_pages());
    std::vector<std::vector<sequence>> of_kinds;
    engines_.for_each([&](auto& engine, auto) {
      engine.read_state(name, in, owners);
      owners.next_cache();
      of_kinds.push_back(engine.sequences());
    });
    owners.require_all(drive_.pages);
    sequence_parts_reader parts(std::move(of_kinds), own.parts);
    sequences_.restore(own.slots, [&](sequence) { return parts.next(); });
    parts.require_all();
  }
  // f(engine, handle, range) for each layer of a range, with the range of this layer alone.
  template <class Range, class F>
  void each_layer(sequence seq, Range range, F&& f) {
    const auto all = static_cast<std::uint32_t>(layers());
    const std::uint32_t end = range.end_layer == store::all_layers ? all : range.end_layer;
    store::require_layers("layered_engine", range.first_layer, end, all);
    for (std::uint32_t l = range.first_layer; l < end; ++l) {
      range.first_layer = l;
      range.end_layer = l + 1;
      at(static_cast<int>(l),
         [&](auto& engine, auto kind) { f(engine, parts_of(seq)[kind], range); });
    }
  }

  // f(engine, kind) of a layer's kind.
  template <class F>
  decltype(auto) at(int layer, F&& f) {
    return engines_.at(kind_of(layer), f);
  }
  template <class F>
  decltype(auto) at(int layer, F&& f) const {
    return engines_.at(kind_of(layer), f);
  }

  // Throws unknown_sequence.
  const sequence_parts& parts_of(sequence seq) const { return sequences_.at(seq); }
  void to_kind(std::span<const attend_request> batch, std::size_t kind,
               std::vector<attend_request>& requests) const {
    requests.assign(batch.begin(), batch.end());
    for (attend_request& r : requests) {
      r.seq = parts_of(r.seq)[kind];
    }
  }

  static void check_kinds(const std::vector<std::uint32_t>& kind_of_layer) {
    for (std::size_t l = 0; l < kind_of_layer.size(); ++l) {
      require(kind_of_layer[l] < kinds, [&] {
        return "layered_engine: layer " + std::to_string(l) + " is of kind " +
               std::to_string(kind_of_layer[l]) + ", there are kinds 0 to " +
               std::to_string(kinds - 1);
      });
    }
  }

  std::vector<std::uint32_t> kind_of_layer_;
  store::shared_drive<Pages> drive_;
  engines engines_;
  store::sequence_slots<sequence> sequences_;  // what a sequence has is its handle in each kind
  std::vector<attend_request> requests_;       // scratch
};

}  // namespace instinfer
