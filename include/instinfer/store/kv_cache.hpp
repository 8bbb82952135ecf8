#pragma once
// The KV cache of many sequences and layers over one finite page store, with the paper's commands
// append and reclaim.

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/core/shape.hpp"
#include "instinfer/layout/validate.hpp"
#include "instinfer/store/capacity_checks.hpp"
#include "instinfer/store/extents.hpp"
#include "instinfer/store/layer_cache.hpp"
#include "instinfer/store/value_checks.hpp"

namespace instinfer::store {

// A call that throws leaves the cache unchanged.
template <class Format, class Layout, class SummaryStates, class Store>
class kv_cache {
  static_assert(
      layout::Layout<Layout>,
      "instinfer: the layout lacks `page_bytes` or `tiles<Format>(context_tokens)`, see layout/concepts.hpp");
  static_assert(
      PageStore<Store>,
      "instinfer: the page store lacks a member or may throw on release, see store/concepts.hpp");

 public:
  using format = Format;
  using element = typename Format::element;
  using summary_states = SummaryStates;
  using layer = layer_cache<Format, SummaryStates>;
  static constexpr std::uint32_t page_bytes = Layout::page_bytes;

  // Throws bad_argument if the shape is not valid, the layout breaks its contract, or the capacity
  // is less than one page per channel.
  kv_cache(const model_shape& shape, const capacity& cap, std::uint32_t channels)
      : shape_{(shape.validate(), shape)},
        address_{cap.address},
        tiles_{layout::checked_tiles<Format, Layout>(cap.context_tokens)},
        store_{channels, pages_per_channel(cap, page_bytes, channels), Layout::page_bytes} {}

  sequence open() {
    std::uint32_t slot = 0;
    while (slot < slots_.size() && slots_[slot].open) {
      ++slot;
    }
    (void)address_.encode(address_fields{.batch = slot});
    if (slot == slots_.size()) {
      slots_.emplace_back();
    }
    slots_[slot].layers.assign(static_cast<std::size_t>(shape_.layers), empty_layer({}));
    slots_[slot].open = true;
    return {slot, slots_[slot].generation};
  }

  // Appends k [new_tokens, kv_heads, k_dim] and v [new_tokens, kv_heads, v_dim] to one layer, and
  // index keys [new_tokens, any] to the summaries that take them. Adds the pages written to
  // `written`. Throws unknown_sequence; bad_argument for wrong shapes and non-finite values;
  // address_overflow; drive_full.
  traffic append(sequence seq, int layer_index, std::span<const element> k,
                 std::span<const element> v, std::span<const float> index_keys,
                 std::vector<page_id>& written) {
    layer& to = layer_of(seq, layer_index);
    const std::size_t k_row = static_cast<std::size_t>(shape_.kv_heads * Format::k_dim);
    const std::size_t v_row = static_cast<std::size_t>(shape_.kv_heads * Format::v_dim);
    require(k.size() % k_row == 0 && v.size() % v_row == 0 && k.size() / k_row == v.size() / v_row,
            [&] {
              return "append: k must be [new_tokens, " + std::to_string(shape_.kv_heads) + ", " +
                     std::to_string(Format::k_dim) + "] and v [new_tokens, " +
                     std::to_string(shape_.kv_heads) + ", " + std::to_string(Format::v_dim) +
                     "], got " + std::to_string(k.size()) + " and " + std::to_string(v.size()) +
                     " elements";
            });
    require_storable<Format>(k, "k", Format::k_dim, shape_.kv_heads);
    require_storable<Format>(v, "v", Format::v_dim, shape_.kv_heads);
    return append_checked(to, seq, layer_index, k, v, index_keys, k.size() / k_row, written);
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
      l.release_all(store_);
    }
    s.layers.clear();
    s.open = false;
    ++s.generation;
  }

  // Frees the oldest tokens of some layers. Throws bad_argument if the range is not within the
  // cache.
  void reclaim(sequence seq, const reclaim_range& range) {
    sequence_slot& s = slot_of(seq);
    const auto layers = static_cast<std::uint32_t>(s.layers.size());
    const std::uint32_t last_layer = range.last_layer == last_of_all ? layers : range.last_layer;
    require(range.first_layer <= last_layer && last_layer <= layers, [&] {
      return "reclaim: layers [" + std::to_string(range.first_layer) + ", " +
             std::to_string(last_layer) + ") are not within [0, " + std::to_string(layers) + ")";
    });
    for (std::uint32_t l = range.first_layer; l < last_layer; ++l) {
      require(range.tokens_before <= s.layers[l].tokens(), [&] {
        return "reclaim: layer " + std::to_string(l) + " has " +
               std::to_string(s.layers[l].tokens()) + " tokens, cannot give up " +
               std::to_string(range.tokens_before);
      });
      require(
          range.tokens_before <= s.layers[l].first() || s.layers[l].may_forget(range.tokens_before),
          [&] {
            return "reclaim: layer " + std::to_string(l) + " has tokens before " +
                   std::to_string(range.tokens_before) +
                   " in an index that needs them; the sequence can go as a whole";
          });
    }
    for (std::uint32_t l = range.first_layer; l < last_layer; ++l) {
      if (range.tokens_before > s.layers[l].first()) {
        s.layers[l].reclaim(store_, range.tokens_before);
      }
    }
  }

  // Clusters one head's tokens of a run. `group` sorts their keys [run, k_dim]
  // (summaries/clustering.hpp), the tokens are stored in that order, and the Index gets the
  // clusters. Adds the pages written to `written`. Throws what `group` throws, or drive_full, and
  // then leaves the head unchanged.
  template <class Index, class Group>
  traffic build(sequence seq, int layer_index, std::uint32_t head, index_run run, Group&& group,
                std::vector<page_id>& written) {
    layer& to = layer_of(seq, layer_index);
    const token_rows<element> rows = to.read_rows(store_, head, run);
    const auto widened = [](std::span<const element> x) {
      std::vector<float> wide(x.size());
      std::ranges::transform(x, wide.begin(), [](element e) { return to_float(e); });
      return wide;
    };
    const std::vector<float> k = widened(rows.k);
    const auto levels = group(std::span<const float>(k), Format::k_dim);
    auto states = to.summaries(head);
    Index::template add_to<typename Format::decoded>(states, run, levels, k, widened(rows.v));
    const std::uint64_t pages = to.pages_of(run);
    require_free(store_, pages, [&] {
      return "build: " + std::to_string(run.size()) + " tokens of a head need ";
    });
    reserve_scratch(written, written.size() + pages);
    begin_writes(seq);
    to.reorder(store_, static_cast<std::uint32_t>(layer_index) + seq.slot, head, run, rows,
               levels.fine.rows, written);
    to.summaries(head) = std::move(states);
    const std::uint64_t bytes = pages * Layout::page_bytes;
    return {.pages_read = pages,
            .pages_written = pages,
            .array_bytes = bytes,
            .channel_bytes = bytes,
            .filtered_bytes = bytes,
            .written_bytes = bytes};
  }

  // The next three functions are for load() (store/cache_file.hpp). This one throws
  // unknown_sequence, and bad_argument if the sequence has tokens.
  void require_empty(sequence seq) {
    for (const layer& l : slot_of(seq).layers) {
      require(l.tokens() == 0, [&] {
        return "load: the sequence has " + std::to_string(l.tokens()) +
               " tokens already; open another one";
      });
    }
  }
  // Empty layers with room for the given tokens and pages of each. Throws address_overflow or
  // drive_full.
  std::vector<layer> room_for(sequence seq, std::span<const layer_extent> extents,
                              std::vector<page_id>& written) {
    std::uint64_t pages = 0;
    std::vector<layer> layers;
    layers.reserve(extents.size());
    for (const layer_extent& e : extents) {
      require_addresses<Format>(address_, tiles_, shape_, seq,
                                static_cast<std::uint32_t>(layers.size()), e.tokens);
      layers.push_back(empty_layer(e));
      pages += e.pages;
    }
    require_free(store_, pages, [] { return std::string("load: the sequence needs "); });
    reserve_scratch(written, written.size() + pages);
    begin_writes(seq);
    return layers;
  }
  void adopt(sequence seq, std::vector<layer>&& layers) { slot_of(seq).layers = std::move(layers); }

  // The cache of one layer. Throws unknown_sequence or bad_argument.
  const layer& at(sequence seq, int layer_index) const {
    return const_cast<kv_cache*>(this)->layer_of(seq, layer_index);
  }

  const model_shape& shape() const { return shape_; }
  const layout::tiling& tiles() const { return tiles_; }
  const Store& pages() const { return store_; }
  Store& pages() { return store_; }  // for the store's own housekeeping; the cache owns the pages

  // The pages of a head as kernels read them: the elements of a planned page, from the store or the
  // group buffer.
  struct page_views {
    const kv_cache& cache;
    const layout::head_pages& head;

    layout::view_of<Format> operator()(const page_read& read) const {
      const layout::stream_pages& from = head.of(read.kind);
      const std::byte* bytes = read.buffered
                                   ? from.open + std::size_t{read.dim_tile} * from.open_bytes
                                   : cache.store_.view(read.page).data();
      return layout::make_view<Format>(bytes, cache.tiles_.of(read.kind),
                                       head.fill(read.kind, read.token_tile), head.page_bytes,
                                       read.buffered);
    }
  };

 private:
  struct sequence_slot {
    std::vector<layer> layers;
    std::uint32_t generation = 0;
    bool open = false;
  };

  sequence_slot& slot_of(sequence seq) {
    require<unknown_sequence>(seq.slot < slots_.size() && slots_[seq.slot].open &&
                                  slots_[seq.slot].generation == seq.generation,
                              [&] {
                                return "sequence " + std::to_string(seq.slot) + " (generation " +
                                       std::to_string(seq.generation) +
                                       ") is not open: it was never opened here, or was reclaimed";
                              });
    return slots_[seq.slot];
  }

  layer& layer_of(sequence seq, int layer_index) {
    sequence_slot& s = slot_of(seq);
    require(layer_index >= 0 && layer_index < shape_.layers, [&] {
      return "layer must be in [0, " + std::to_string(shape_.layers) + "), got " +
             std::to_string(layer_index);
    });
    return s.layers[static_cast<std::size_t>(layer_index)];
  }

  layer empty_layer(const layer_extent& holds) const {
    return {tiles_, Layout::page_bytes, static_cast<std::uint32_t>(shape_.kv_heads), holds};
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
    constexpr std::uint64_t most = std::numeric_limits<std::int32_t>::max();
    const std::uint64_t total = to.tokens() + std::min(count, most);
    require<address_overflow>(total <= most, [&] {
      return "append: a sequence holds at most 2^31 - 1 tokens, would hold " +
             std::to_string(total);
    });
    require_addresses<Format>(address_, tiles_, shape_, seq,
                              static_cast<std::uint32_t>(layer_index), total);
    const auto n = static_cast<std::uint32_t>(count);
    require_free(store_, to.pages_to_append(n),
                 [&] { return "append: " + std::to_string(count) + " tokens need "; });
    to.reserve(n, Store::holds_data, written);
    begin_writes(seq);
    return to.append(store_, static_cast<std::uint32_t>(layer_index) + seq.slot, k, v, index_keys,
                     n, written);
  }

  model_shape shape_;
  address_codec address_;
  layout::tiling tiles_;
  Store store_;
  std::vector<sequence_slot> slots_;
};

}  // namespace instinfer::store
