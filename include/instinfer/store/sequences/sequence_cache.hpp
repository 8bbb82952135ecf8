#pragma once
// long because: every call checks and reserves all that it needs, and then cannot fail.
// The KV cache of many sequences and layers over one finite page store, with the paper's commands
// append and reclaim. Its tiles are values, so that caches of all layouts are compiled once.

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "instinfer/core/shape.hpp"
#include "instinfer/layout/page_reader.hpp"
#include "instinfer/store/layer/extents.hpp"
#include "instinfer/store/layer/layer_cache.hpp"
#include "instinfer/store/pages/group_buffer.hpp"
#include "instinfer/store/pages/shared_pages.hpp"
#include "instinfer/store/sequences/capacity_checks.hpp"
#include "instinfer/store/sequences/sequence_slots.hpp"
#include "instinfer/store/sequences/value_checks.hpp"
#include "instinfer/summaries/clustering.hpp"
#include "instinfer/summaries/drawn_keys.hpp"

namespace instinfer::store {

// A call that throws leaves the cache unchanged.
template <class Format, class SummaryStates, class Store>
class sequence_cache {
  static_assert(
      PageStore<Store>,
      "instinfer: the page store lacks a member or may throw on release, see store/pages/concepts.hpp");

 public:
  using format = Format;
  using element = typename Format::element;
  using summary_states = SummaryStates;
  using padded = typename Format::padded;  // of stored rows; callers pass rows of Format
  using layer = layer_cache<padded, SummaryStates>;

  // Throws bad_argument if the shape is not valid, or the capacity is less than one page per
  // channel; address_overflow if the address cannot name the last head of the last layer. The tiles
  // must keep the contract of a layout (layout/validate.hpp).
  sequence_cache(const model_shape& shape, const capacity& cap, const layout::tiling& tiles,
                 std::uint32_t page_bytes, std::uint32_t channels)
      : sequence_cache{shape, cap, tiles, page_bytes,
                       Store{channels, pages_per_channel(cap, page_bytes, channels), page_bytes}} {}
  // The same over a given store, whose size replaces `cap.bytes`.
  sequence_cache(const model_shape& shape, const capacity& cap, const layout::tiling& tiles,
                 std::uint32_t page_bytes, Store pages)
      : shape_{(shape.validate(), shape)},
        address_{cap.address},
        tiles_{tiles},
        page_bytes_{page_bytes},
        numbered_tokens_{numbered_tokens(address_, tiles_)},
        rebase_tokens_{rebase_tokens_of(tiles_)},
        own_buffer_{cap.buffer_bytes},
        store_{std::move(pages)} {
    (void)address_.encode(address_fields{.layer = static_cast<std::uint64_t>(shape.layers) - 1,
                                         .head = static_cast<std::uint64_t>(shape.kv_heads) - 1});
  }

  // Takes the lowest free slot. Throws address_overflow if the address has no number for it.
  sequence open() {
    require_slot();
    return slots_.take(
        std::vector<layer>(static_cast<std::size_t>(shape_.layers), empty_layer({})));
  }

  // A sequence with the same tokens in all layers, which goes on for itself. The two share their
  // sealed pages; open pages, summaries and page tables are copied. Throws unknown_sequence,
  // address_overflow as open, and drive_full if the group buffer has no room for the copies.
  sequence fork(sequence seq) {
    const std::vector<layer>& from = slots_.at(seq);
    require_slot();
    std::vector<layer> layers;
    layers.reserve(from.size());
    std::uint64_t open_bytes = 0;
    for (const layer& l : from) {
      layers.push_back(l.forked());
      open_bytes += layers.back().open_bytes();
      l.for_each_stream([&](const auto& s) { store_.reserve_owners(s.pages()); });
    }
    buffer().require_free(open_bytes,
                          [] { return std::string("fork: copies of open pages need "); });
    const sequence copy = slots_.take(std::move(layers));
    for (const layer& l : slots_.at(copy)) {
      l.for_each_stream([&](const auto& s) { store_.share(s.pages()); });
    }
    buffer().count(0, open_bytes);
    return copy;
  }

  // Appends k [new_tokens, kv_heads, k_dim] and v [new_tokens, kv_heads, v_dim] (latent rows: k
  // alone) to one layer, and index keys [new_tokens, any] to the summaries that take them. Adds the
  // pages written to `written`. Throws unknown_sequence; bad_argument for wrong shapes and
  // non-finite values; address_overflow; drive_full.
  traffic append(sequence seq, int layer_index, std::span<const element> k,
                 std::span<const element> v, std::span<const float> index_keys,
                 std::vector<page_id>& written) {
    layer& to = layer_of(seq, layer_index);
    const std::size_t count = storable_tokens<Format>(k, v, shape_.kv_heads);
    std::vector<element> k_rows, v_rows;
    return append_checked(
        to, seq, layer_index, padded_rows(k, Format::k_dim, padded::k_dim, k_rows),
        padded_rows(v, Format::v_dim, padded::v_dim, v_rows), index_keys, count, written);
  }

  traffic append(sequence seq, int layer_index, std::span<const element> k,
                 std::span<const element> v, std::vector<page_id>& written) {
    return append(seq, layer_index, k, v, {}, written);
  }

  // Appends `count` tokens without values, for stores that hold no data.
  traffic append_count(sequence seq, int layer_index, std::uint64_t count,
                       std::vector<page_id>& written)
    requires(!Store::holds_data)
  {
    return append_checked(layer_of(seq, layer_index), seq, layer_index, {}, {}, {}, count, written);
  }

  // Frees a whole sequence; its handle is then unknown.
  void reclaim(sequence seq) {
    for (layer& l : slots_.at(seq)) {
      buffer().count(l.open_bytes(), 0);
      l.release_all(store_);
    }
    slots_.give_back(seq);
  }

  // Frees the oldest tokens of some layers. Throws bad_argument for a range outside the cache.
  void reclaim(sequence seq, const reclaim_range& range) {
    check_reclaim(seq, range);
    std::vector<layer>& layers = slots_.at(seq);
    for (std::uint32_t l = range.first_layer; l < end_of(range); ++l) {
      if (const std::uint32_t before = number_of(layers[l], range.tokens_before);
          before > layers[l].first()) {
        layers[l].reclaim(store_, before);
      }
    }
  }

  // Throws what reclaim would, and changes nothing.
  void check_reclaim(sequence seq, const reclaim_range& range) const {
    const std::vector<layer>& layers = slots_.at(seq);
    require_layers("reclaim", range.first_layer, end_of(range),
                   static_cast<std::uint32_t>(shape_.layers));
    for (std::uint32_t l = range.first_layer; l < end_of(range); ++l) {
      const layer& of = layers[l];
      const std::uint32_t before = number_of(of, range.tokens_before);
      require_reclaimable(l, of.positions(), range.tokens_before,
                          before <= of.first() || of.may_forget(before));
    }
  }

  // Takes back the newest tokens of some layers. Calls reads(pages) with the sealed pages that it
  // will read, before it changes anything. Throws unknown_sequence; bad_argument for a range
  // outside the cache, and where a summary cannot go back; drive_full for the group buffer.
  template <class Reads>
  traffic truncate(sequence seq, const truncate_range& range, std::vector<page_id>& read,
                   Reads&& reads) {
    static_assert(
        attention::takes_back<SummaryStates>,
        "instinfer: a summary cannot take tokens back, its state lacks any_order or truncate(n, all) noexcept, see summaries/concepts.hpp");
    check_truncate(seq, range);
    const auto all = std::span(slots_.at(seq)).first(end_of(range)).subspan(range.first_layer);
    read.clear();
    std::uint64_t open_bytes = 0;
    for (const layer& l : all) {
      l.list_truncated(number_of(l, range.tokens), read);
      open_bytes += l.open_bytes_truncated(number_of(l, range.tokens)) - l.open_bytes();
    }
    if constexpr (Store::holds_data) {
      buffer().require_free(open_bytes, [&] {
        return "truncate: opening the pages at token " + std::to_string(range.tokens) + " needs ";
      });
    }
    for (layer& l : all) {
      const counted_growth<layer> growth(buffer(), l);
      l.reserve_truncate(number_of(l, range.tokens), Store::holds_data);
    }
    reads(std::span<const page_id>(read));
    for (layer& l : all) {
      if (const std::uint32_t tokens = number_of(l, range.tokens); tokens < l.tokens()) {
        l.truncate(store_, tokens);
      }
    }
    const std::uint64_t bytes = read.size() * page_bytes_;
    return {.pages_read = read.size(),
            .array_bytes = bytes,
            .channel_bytes = bytes,
            .filtered_bytes = bytes};
  }
  // Throws bad_argument as truncate, and changes nothing.
  void check_truncate(sequence seq, const truncate_range& range) const {
    const std::vector<layer>& layers = slots_.at(seq);
    require_layers("truncate", range.first_layer, end_of(range),
                   static_cast<std::uint32_t>(shape_.layers));
    for (std::uint32_t l = range.first_layer; l < end_of(range); ++l) {
      const layer& of = layers[l];
      require_truncatable(l, of.base() + of.first(), of.positions(), range.tokens);
      if (!of.may_truncate(number_of(of, range.tokens))) [[unlikely]] {
        throw_not_truncatable(l, range.tokens);
      }
    }
  }

  // Clusters one head's tokens of a run. `group` sorts their keys [run, k_dim]
  // (summaries/clustering.hpp), the tokens are stored in that order, and the Index gets the
  // clusters; without data, the keys are drawn. Adds the pages written to `written`. Throws what
  // `group` throws, or drive_full, and then leaves the head unchanged.
  template <class Index, class Group>
  traffic build(sequence seq, int layer_index, std::uint32_t head, index_run run, Group&& group,
                std::vector<page_id>& written) {
    layer& to = layer_of(seq, layer_index);
    auto states = to.summaries(head);
    token_rows<element> rows;
    attention::cluster_levels levels;
    std::vector<float> k, v;  // empty without data
    if constexpr (Store::holds_data) {
      rows = to.read_rows(store_, head, run);
      k = widened(rows.k);
      v = widened(rows.v);
      levels = group(std::span<const float>(k), padded::k_dim);
    } else {
      levels = group(attention::drawn_keys(head, run), attention::drawn_key_dims);
    }
    Index::template add_to<typename padded::decoded>(states, run, levels, k, v);
    const std::uint64_t pages = to.pages_of(run);
    require_free(store_, pages, [&] {
      return "build: " + std::to_string(run.size()) + " tokens of a head need ";
    });
    reserve_scratch(written, written.size() + pages);
    begin_writes(seq);
    to.reorder(store_, static_cast<std::uint32_t>(layer_index) + seq.slot, head, run, rows,
               levels.fine.rows, written);
    to.summaries(head) = std::move(states);
    const std::uint64_t bytes = pages * page_bytes_;
    return {.pages_read = pages,
            .pages_written = pages,
            .array_bytes = bytes,
            .channel_bytes = bytes,
            .filtered_bytes = bytes,
            .written_bytes = bytes};
  }

  // For load() (store/sequences/cache_file.hpp), like the next two. Throws bad_argument if there
  // are tokens.
  void require_empty(sequence seq) const {
    for (const layer& l : slots_.at(seq)) {
      require(l.tokens() == 0, [&] {
        return "load: the sequence has " + std::to_string(l.tokens()) +
               " tokens already; open another one";
      });
    }
  }
  // Empty layers with room for the given tokens and pages of each, which come from a file. Throws
  // bad_file if a sequence of this cache cannot have them, address_overflow, and drive_full.
  std::vector<layer> room_for(sequence seq, std::span<const layer_extent> extents,
                              std::vector<page_id>& written) {
    std::vector<layer> layers = layers_for(seq, extents);
    std::uint64_t pages = 0;
    for (const layer_extent& e : extents) {
      pages += e.pages;
    }
    require_free(store_, pages, [] { return std::string("load: the sequence needs "); });
    reserve_scratch(written, written.size() + pages);
    begin_writes(seq);
    return layers;
  }
  // The same where the pages are there already (store/sequences/commit.hpp).
  std::vector<layer> layers_for(sequence seq, std::span<const layer_extent> extents) {
    require_extents(extents, shape_.layers);
    std::uint64_t open_bytes = 0;
    std::vector<layer> layers;
    layers.reserve(extents.size());
    for (const layer_extent& e : extents) {
      const auto number = static_cast<std::uint32_t>(layers.size());
      require_base(e, rebase_tokens_, number);
      require_addresses(address_, tiles_, shape_, padded::k_dim, padded::v_dim, seq, number,
                        e.tokens);
      layers.push_back(empty_layer(e));
      require_pages(e, layers.back().pages_holding(), number);
      open_bytes += layers.back().open_bytes_after(0);
    }
    buffer().require_free(open_bytes, [] { return std::string("load: the sequence needs "); });
    return layers;
  }
  void adopt(sequence seq, std::vector<layer>&& layers) {
    std::ranges::for_each(layers, [&](const layer& l) { buffer().count(0, l.open_bytes()); });
    slots_.at(seq) = std::move(layers);
  }

  // The open sequences, by slot.
  std::vector<sequence> sequences() const { return slots_.open_ones(); }
  // For commits (store/sequences/commit.hpp): the slots, and all sequences of a cache that has none
  // yet. Throws address_overflow, and what layers_of throws.
  std::vector<slot_state> slot_states() const { return slots_.states(); }
  template <class LayersOf>
  void reopen(std::span<const slot_state> states, LayersOf&& layers_of) {
    slots_.restore(states, [&](sequence seq) {
      (void)address_.encode(address_fields{.batch = seq.slot});
      std::vector<layer> layers = layers_of(seq);
      std::ranges::for_each(layers, [&](const layer& l) { buffer().count(0, l.open_bytes()); });
      return layers;
    });
  }

  // The cache of one layer. Throws unknown_sequence or bad_argument.
  const layer& at(sequence seq, int layer_index) const {
    return const_cast<sequence_cache*>(this)->layer_of(seq, layer_index);
  }

  // Whether f(layer) holds for any layer of any sequence.
  template <class F>
  bool any_layer(F&& f) const {
    return slots_.any([&](const std::vector<layer>& all) { return std::ranges::any_of(all, f); });
  }

  const model_shape& shape() const { return shape_; }
  const layout::tiling& tiles() const { return tiles_; }
  std::uint32_t page_bytes() const { return page_bytes_; }
  // Bytes of all open pages in the group buffer.
  std::uint64_t buffered_bytes() const { return buffer().used(); }
  const shared_pages<Store>& pages() const { return store_; }
  // For the store's own housekeeping; the cache owns the pages.
  shared_pages<Store>& pages() { return store_; }

  // The pages of a head as kernels read them.
  struct page_views : layout::page_reader<padded> {
    page_views(const sequence_cache& cache, const layout::head_pages& head)
        : layout::page_reader<padded>{cache.store_, head} {}
  };

 private:
  // Throws address_overflow where the address has no room for another sequence.
  void require_slot() const { (void)address_.encode(address_fields{.batch = slots_.next()}); }

  std::uint32_t end_of(const auto& range) const {
    return range.end_layer == all_layers ? static_cast<std::uint32_t>(shape_.layers)
                                         : range.end_layer;
  }

  layer& layer_of(sequence seq, int layer_index) {
    std::vector<layer>& layers = slots_.at(seq);
    require_layer(layer_index, shape_.layers);
    return layers[static_cast<std::size_t>(layer_index)];
  }

  // The number of a position that is at most the layer's end; 0 for those before its base.
  static std::uint32_t number_of(const layer& of, std::uint64_t position) {
    return static_cast<std::uint32_t>(position - std::min(position, of.base()));
  }

  static std::uint64_t rebase_tokens_of(const layout::tiling& tiles) {
    std::uint64_t all = attention::rebase_tokens<SummaryStates>;
    for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
      if (tiles.of(s).stored()) {
        all = attention::common_multiple(all, tiles.of(s).tokens);
      }
    }
    return all;
  }
  // That of the drive, where several caches share one (store/pages/shared_drive.hpp).
  group_buffer& buffer() {
    if constexpr (requires { store_.buffer(); }) {
      return store_.buffer();
    } else {
      return own_buffer_;
    }
  }
  const group_buffer& buffer() const { return const_cast<sequence_cache*>(this)->buffer(); }

  layer empty_layer(const layer_extent& holds) const {
    return {tiles_, page_bytes_, static_cast<std::uint32_t>(shape_.kv_heads), holds};
  }

  void begin_writes(sequence seq) {
    if constexpr (requires { store_.begin_writes(seq.slot); }) {
      store_.begin_writes(seq.slot);
    }
  }

  traffic append_checked(layer& to, sequence seq, int layer_index, std::span<const element> k,
                         std::span<const element> v, std::span<const float> index_keys,
                         std::uint64_t count, std::vector<page_id>& written) {
    if (count == 0) {
      return {};
    }
    const std::uint64_t more = std::min(count, most_tokens);
    const std::uint64_t renumbered = to.tokens() + more > numbered_tokens_ && rebase_tokens_ > 0
                                         ? to.first() / rebase_tokens_ * rebase_tokens_
                                         : 0;
    const std::uint64_t total = to.tokens() - renumbered + more;
    require_countable(total);
    require_addresses(address_, tiles_, shape_, padded::k_dim, padded::v_dim, seq,
                      static_cast<std::uint32_t>(layer_index), total);
    const auto n = static_cast<std::uint32_t>(count);
    const auto who = [&] { return "append: " + std::to_string(count) + " tokens need "; };
    require_free(store_, to.pages_to_append(n), who);
    if constexpr (Store::holds_data) {
      buffer().require_free(to.open_bytes_after(n) - to.open_bytes(), who);
    }
    const counted_growth<layer> growth(buffer(), to);
    to.reserve(n, Store::holds_data, written);
    begin_writes(seq);
    if (renumbered > 0) {
      to.rebase(static_cast<std::uint32_t>(renumbered));
    }
    return to.append(store_, static_cast<std::uint32_t>(layer_index) + seq.slot, k, v, index_keys,
                     n, written);
  }

  model_shape shape_;
  address_codec address_;
  layout::tiling tiles_;
  std::uint32_t page_bytes_;
  std::uint64_t numbered_tokens_;  // of a layer
  std::uint64_t rebase_tokens_;    // the common multiple of tiles and groups; 0: beyond all numbers
  group_buffer own_buffer_;
  shared_pages<Store> store_;
  sequence_slots<layer> slots_;
};

}  // namespace instinfer::store
