#pragma once
// The KV cache of many sequences and layers over one finite page store, with the paper's commands
// append and reclaim. Its tiles are values, so that caches of all layouts are compiled once.

#include <algorithm>
#include <string>
#include <vector>

#include "instinfer/core/raw_array.hpp"
#include "instinfer/core/shape.hpp"
#include "instinfer/layout/page_reader.hpp"
#include "instinfer/store/capacity_checks.hpp"
#include "instinfer/store/extents.hpp"
#include "instinfer/store/group_buffer.hpp"
#include "instinfer/store/layer_cache.hpp"
#include "instinfer/store/value_checks.hpp"
#include "instinfer/summaries/clustering.hpp"
#include "instinfer/summaries/drawn_keys.hpp"

namespace instinfer::store {

// A call that throws leaves the cache unchanged.
template <class Format, class SummaryStates, class Store>
class sequence_cache {
  static_assert(
      PageStore<Store>,
      "instinfer: the page store lacks a member or may throw on release, see store/concepts.hpp");

 public:
  using format = Format;
  using element = typename Format::element;
  using summary_states = SummaryStates;
  using layer = layer_cache<Format, SummaryStates>;

  // Throws bad_argument if the shape is not valid, or the capacity is less than one page per
  // channel; address_overflow if the address cannot name the last head of the last layer. The tiles
  // must keep the contract of a layout (layout/validate.hpp). `options` are those of the store.
  sequence_cache(const model_shape& shape, const capacity& cap, const layout::tiling& tiles,
                 std::uint32_t page_bytes, std::uint32_t channels,
                 const options_of<Store>& options = {})
      : shape_{(shape.validate(), shape)},
        address_{cap.address},
        tiles_{tiles},
        page_bytes_{page_bytes},
        buffer_{cap.buffer_bytes},
        store_{make_store<Store>(options, cap, channels, page_bytes)} {
    (void)address_.encode(address_fields{.layer = static_cast<std::uint64_t>(shape.layers) - 1,
                                         .head = static_cast<std::uint64_t>(shape.kv_heads) - 1});
  }

  // Takes the lowest free slot. Throws address_overflow where the address has no room for another
  // sequence.
  sequence open() {
    const bool reused = !free_slots_.empty();
    const auto slot = reused ? free_slots_.front() : static_cast<std::uint32_t>(slots_.size());
    (void)address_.encode(address_fields{.batch = slot});
    if (!reused) {
      reserve_scratch(free_slots_, slots_.size() + 1);  // so that reclaim cannot fail
      slots_.emplace_back();
    }
    try {
      slots_[slot].layers.assign(static_cast<std::size_t>(shape_.layers), empty_layer({}));
    } catch (...) {
      if (!reused) {
        slots_.pop_back();
      }
      throw;
    }
    if (reused) {
      std::pop_heap(free_slots_.begin(), free_slots_.end(), lowest_on_top);
      free_slots_.pop_back();
    }
    slots_[slot].open = true;
    return {slot, slots_[slot].generation, identity_.data()};
  }

  // Appends k [new_tokens, kv_heads, k_dim] and v [new_tokens, kv_heads, v_dim] to one layer, and
  // index keys [new_tokens, any] to the summaries that take them. Adds the pages written to
  // `written`. Throws unknown_sequence; bad_argument for wrong shapes and non-finite values;
  // address_overflow; drive_full.
  traffic append(sequence seq, int layer_index, std::span<const element> k,
                 std::span<const element> v, std::span<const float> index_keys,
                 std::vector<page_id>& written) {
    layer& to = layer_of(seq, layer_index);
    const std::size_t count =
        tokens_of(k.size(), v.size(), shape_.kv_heads, Format::k_dim, Format::v_dim);
    require_storable<Format>(k, "k", Format::k_dim, shape_.kv_heads);
    require_storable<Format>(v, "v", Format::v_dim, shape_.kv_heads);
    return append_checked(to, seq, layer_index, k, v, index_keys, count, written);
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
    sequence_slot& s = slot_of(seq);
    for (layer& l : s.layers) {
      buffer_.count(l.open_bytes(), 0);
      l.release_all(store_);
    }
    s.layers.clear();
    s.open = false;
    ++s.generation;
    free_slots_.push_back(seq.slot);
    std::push_heap(free_slots_.begin(), free_slots_.end(), lowest_on_top);
  }

  // Frees the oldest tokens of some layers. Throws bad_argument for a range outside the cache.
  void reclaim(sequence seq, const reclaim_range& range) {
    sequence_slot& s = slot_of(seq);
    const auto layers = static_cast<std::uint32_t>(s.layers.size());
    const std::uint32_t end_layer = range.end_layer == all_layers ? layers : range.end_layer;
    require_layers(range.first_layer, end_layer, layers);
    for (std::uint32_t l = range.first_layer; l < end_layer; ++l) {
      const layer& of = s.layers[l];
      require_reclaimable(l, of.tokens(), range.tokens_before,
                          range.tokens_before <= of.first() || of.may_forget(range.tokens_before));
    }
    for (std::uint32_t l = range.first_layer; l < end_layer; ++l) {
      if (range.tokens_before > s.layers[l].first()) {
        s.layers[l].reclaim(store_, range.tokens_before);
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
      levels = group(std::span<const float>(k), Format::k_dim);
    } else {
      levels = group(attention::drawn_keys(head, run), attention::drawn_key_dims);
    }
    Index::template add_to<typename Format::decoded>(states, run, levels, k, v);
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

  // For load() (store/cache_file.hpp), like the next two. Throws bad_argument if there are tokens.
  void require_empty(sequence seq) {
    for (const layer& l : slot_of(seq).layers) {
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
    require_extents(extents, shape_.layers);
    std::uint64_t pages = 0, open_bytes = 0;
    std::vector<layer> layers;
    layers.reserve(extents.size());
    for (const layer_extent& e : extents) {
      const auto number = static_cast<std::uint32_t>(layers.size());
      require_addresses(address_, tiles_, shape_, Format::k_dim, Format::v_dim, seq, number,
                        e.tokens);
      layers.push_back(empty_layer(e));
      require_pages(e, layers.back().pages_holding(), number);
      pages += e.pages;
      open_bytes += layers.back().open_bytes_after(0);
    }
    const auto who = [] { return std::string("load: the sequence needs "); };
    require_free(store_, pages, who);
    buffer_.require_free(open_bytes, who);
    reserve_scratch(written, written.size() + pages);
    begin_writes(seq);
    return layers;
  }
  void adopt(sequence seq, std::vector<layer>&& layers) {
    std::ranges::for_each(layers, [&](const layer& l) { buffer_.count(0, l.open_bytes()); });
    slot_of(seq).layers = std::move(layers);
  }

  // The cache of one layer. Throws unknown_sequence or bad_argument.
  const layer& at(sequence seq, int layer_index) const {
    return const_cast<sequence_cache*>(this)->layer_of(seq, layer_index);
  }

  const model_shape& shape() const { return shape_; }
  const layout::tiling& tiles() const { return tiles_; }
  std::uint32_t page_bytes() const { return page_bytes_; }
  // Bytes of all open pages.
  std::uint64_t buffered_bytes() const { return buffer_.used(); }
  const Store& pages() const { return store_; }
  Store& pages() { return store_; }  // for the store's own housekeeping; the cache owns the pages

  // The pages of a head as kernels read them.
  struct page_views : layout::page_reader<Format> {
    page_views(const sequence_cache& cache, const layout::head_pages& head)
        : layout::page_reader<Format>{cache.store_, head} {}
  };

 private:
  struct sequence_slot {
    std::vector<layer> layers;
    std::uint32_t generation = 0;
    bool open = false;
  };

  sequence_slot& slot_of(sequence seq) {
    require_open(seq.cache == identity_.data() && seq.slot < slots_.size() &&
                     slots_[seq.slot].open && slots_[seq.slot].generation == seq.generation,
                 seq);
    return slots_[seq.slot];
  }

  layer& layer_of(sequence seq, int layer_index) {
    sequence_slot& s = slot_of(seq);
    require_layer(layer_index, shape_.layers);
    return s.layers[static_cast<std::size_t>(layer_index)];
  }

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
    const std::uint64_t total = to.tokens() + std::min(count, std::uint64_t{1} << 31);
    require_countable(total);
    require_addresses(address_, tiles_, shape_, Format::k_dim, Format::v_dim, seq,
                      static_cast<std::uint32_t>(layer_index), total);
    const auto n = static_cast<std::uint32_t>(count);
    const auto who = [&] { return "append: " + std::to_string(count) + " tokens need "; };
    require_free(store_, to.pages_to_append(n), who);
    if constexpr (Store::holds_data) {
      buffer_.require_free(to.open_bytes_after(n) - to.open_bytes(), who);
    }
    const counted_growth<layer> growth(buffer_, to);
    to.reserve(n, Store::holds_data, written);
    begin_writes(seq);
    return to.append(store_, static_cast<std::uint32_t>(layer_index) + seq.slot, k, v, index_keys,
                     n, written);
  }

  static bool lowest_on_top(std::uint32_t a, std::uint32_t b) { return a > b; }
  model_shape shape_;
  address_codec address_;
  layout::tiling tiles_;
  std::uint32_t page_bytes_;
  group_buffer buffer_;
  Store store_;
  std::vector<sequence_slot> slots_;
  std::vector<std::uint32_t> free_slots_;  // a heap, the lowest on top
  // Its address names the cache, also after a move.
  raw_array<char> identity_{1};
};

}  // namespace instinfer::store
