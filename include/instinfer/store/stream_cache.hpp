#pragma once
// The pages of one stream (K by token, K by dim, V) in one layer of one sequence: L2P entries of sealed pages, and the open
// page of every head in the group buffer (InstInfer §IV-C).

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "instinfer/core/scratch.hpp"
#include "instinfer/layout/head_pages.hpp"
#include "instinfer/store/concepts.hpp"

namespace instinfer::store {

// Tokens enter in order. An open page has the layout of the sealed page it becomes; when a tile of tokens is complete,
// the pages of all heads are written together. With a codec, open pages hold the values as they were appended, and sealing
// encodes them, once.
template <class Format>
class stream_cache {
 public:
  using element = typename Format::element;
  using stored_element = typename Format::decoded::element;  // what holds a stored value exactly

  stream_cache(stream kind, const layout::tile& tile, std::uint32_t page_bytes,
               std::uint32_t kv_heads)
      : kind_{kind}, tile_{tile}, page_bytes_{page_bytes}, kv_heads_{kv_heads} {}

  bool stored() const { return tile_.stored(); }
  stream kind() const { return kind_; }
  const layout::tile& tile() const { return tile_; }
  std::uint32_t sealed_tokens() const { return sealed_tokens_; }

  // Pages that sealing takes when `count` tokens come to the `have` that are there.
  std::uint64_t pages_to_append(std::uint32_t have, std::uint32_t count) const {
    const std::uint64_t tiles =
        (std::uint64_t{have} + count) / tile_.tokens - sealed_tokens_ / tile_.tokens;
    return tiles * pages_per_tile();
  }

  // Takes all memory that append will need.
  void reserve(std::uint32_t have, std::uint32_t count, bool holds_data) {
    reserve_scratch(table_, table_.size() + pages_to_append(have, count));
    if (holds_data) {
      open_.resize(pages_per_tile() * open_bytes());
    }
  }

  // Appends x [count, kv_heads, head_dim] to the `have` tokens that are there: up to the end of the open tile, then whole
  // tiles past the buffer, then what opens the next one. Calls sealed() when the open tile was written and its open pages are
  // still there.
  template <PageStore Store, class Sealed>
  void append(Store& store, std::uint32_t start_channel, std::span<const element> x,
              std::uint32_t have, std::uint32_t count, std::vector<page_id>& written,
              Sealed&& sealed) {
    const std::uint32_t at = have % tile_.tokens;
    std::uint32_t done = at == 0 ? 0 : std::min(tile_.tokens - at, count);
    fill_open<Store>(at, x, 0, done);
    if (at > 0 && at + done == tile_.tokens) {
      write_tiles(store, start_channel, 1, written,
                  [&](std::uint32_t, std::uint32_t h, std::uint32_t dim_tile,
                      std::span<std::byte> page) { seal(h, dim_tile, page); });
      sealed();
    }
    const std::uint32_t whole = (count - done) / tile_.tokens;
    write_tiles(
        store, start_channel, whole, written,
        [&](std::uint32_t i, std::uint32_t h, std::uint32_t dim_tile, std::span<std::byte> page) {
          const std::uint32_t first = done + i * tile_.tokens;
          if constexpr (Format::plain) {
            copy_tokens(reinterpret_cast<element*>(page.data()), 0, x, first, tile_.tokens, h,
                        dim_tile);
          } else {  // by way of the open page, which is free now
            copy_tokens(open_page(h, dim_tile), 0, x, first, tile_.tokens, h, dim_tile);
            seal(h, dim_tile, page);
          }
        });
    done += whole * tile_.tokens;
    fill_open<Store>(0, x, done, count - done);
  }

  // Releases the pages whose tokens are all before `new_first`.
  template <PageStore Store>
  void reclaim(Store& store, std::uint32_t new_first) {
    const std::uint32_t tiles = std::min(new_first, sealed_tokens_) / tile_.tokens;
    for (std::size_t i = std::size_t{reclaimed_tiles_} * pages_per_tile();
         i < tiles * pages_per_tile(); ++i) {
      store.release(std::exchange(table_[i], no_page));
    }
    reclaimed_tiles_ = std::max(reclaimed_tiles_, tiles);
  }

  template <PageStore Store>
  void release_all(Store& store) {
    for (const page_id page : table_) {
      if (page != no_page) {
        store.release(page);
      }
    }
    table_.clear();
  }

  layout::stream_pages head(std::uint32_t h) const {
    return {.table = table_,
            .open = open_.empty() ? nullptr : open_.data() + open_offset(h, 0),
            .open_bytes = static_cast<std::uint32_t>(open_bytes()),
            .sealed_tokens = sealed_tokens_,
            .dim_tiles = dim_tiles(),
            .kv_heads = kv_heads_,
            .head = h};
  }

  // One token's row [head_dim] as it is stored; `open`: in the group buffer, else in the store.
  template <PageStore Store>
  void read_row(const Store& store, std::uint32_t h, std::uint32_t token, bool open,
                std::span<stored_element> row) const {
    const std::uint32_t token_tile = token / tile_.tokens;
    const std::uint32_t t = token % tile_.tokens;
    for (std::uint32_t dim_tile = 0; dim_tile < dim_tiles(); ++dim_tile) {
      const std::byte* bytes = open ? open_.data() + open_offset(h, dim_tile)
                                    : store.view(table_[at(token_tile, h, dim_tile)]).data();
      const auto page = layout::make_view<Format>(bytes, tile_, tile_.tokens, page_bytes_, open);
      for (std::uint32_t i = 0; i < tile_.dims; ++i) {
        stored_element& to = row[dim_tile * tile_.dims + i];
        if constexpr (Format::plain) {
          to = page.data[tile_.offset(t, i)];
        } else {
          to = page(t, i);
        }
      }
    }
  }

  // Sealed pages that hold tokens of a run of one head.
  std::uint64_t pages_of(index_run run) const {
    const std::uint32_t last = std::min(run.last, sealed_tokens_);
    return !stored() || run.first >= last
               ? 0
               : std::uint64_t{(last - 1) / tile_.tokens - run.first / tile_.tokens + 1} *
                     dim_tiles();
  }

  // The run's tokens of one head take another order: token run.first + i gets row order[i] of `rows` [run, head_dim]. Sealed
  // pages are written anew, of which pages_of(run) must be free; open ones are changed where they are.
  template <PageStore Store>
  void reorder(Store& store, std::uint32_t start_channel, std::uint32_t h, index_run run,
               std::span<const element> rows, std::span<const std::uint32_t> order,
               std::vector<page_id>& written) {
    static_assert(
        Format::plain,
        "instinfer: clustered caches store fp32, fp16 or bf16: a codec would round once more, see store/stream_cache.hpp");
    const std::size_t head_dim = std::size_t{dim_tiles()} * tile_.dims;
    for (std::uint32_t t = run.first / tile_.tokens; t * tile_.tokens < run.last; ++t) {
      for (std::uint32_t dim_tile = 0; dim_tile < dim_tiles(); ++dim_tile) {
        element* page = open_page(h, dim_tile);
        if (t * tile_.tokens < sealed_tokens_) {
          const page_id old = std::exchange(
              table_[at(t, h, dim_tile)],
              store.allocate(channel_of(t, h, dim_tile, start_channel, store.channels())));
          const std::span<std::byte> fresh = store.write(table_[at(t, h, dim_tile)]);
          std::ranges::copy(store.view(old), fresh.begin());
          page = reinterpret_cast<element*>(fresh.data());
          store.release(old);
          written.push_back(table_[at(t, h, dim_tile)]);
        }
        for (std::uint32_t token = std::max(run.first, t * tile_.tokens);
             token < std::min(run.last, (t + 1) * tile_.tokens); ++token) {
          const element* row = rows.data() + order[token - run.first] * head_dim +
                               std::size_t{dim_tile} * tile_.dims;
          for (std::uint32_t i = 0; i < tile_.dims; ++i) {
            page[tile_.offset(token % tile_.tokens, i)] = row[i];
          }
        }
      }
    }
  }

  // DRAM of the open pages and the L2P entries.
  std::uint64_t resident_bytes() const { return open_.size() + table_.size() * sizeof(page_id); }

 private:
  std::uint32_t dim_tiles() const {
    const int head_dim = kind_ == stream::v_by_token ? Format::v_dim : Format::k_dim;
    return stored() ? static_cast<std::uint32_t>(head_dim) / tile_.dims : 0;
  }
  std::size_t pages_per_tile() const { return std::size_t{kv_heads_} * dim_tiles(); }
  std::size_t at(std::uint32_t token_tile, std::uint32_t h, std::uint32_t dim_tile) const {
    return (std::size_t{token_tile} * kv_heads_ + h) * dim_tiles() + dim_tile;
  }

  std::size_t open_bytes() const {
    return Format::plain ? page_bytes_ : tile_.elements() * sizeof(element);
  }
  std::size_t open_offset(std::uint32_t h, std::uint32_t dim_tile) const {
    return (std::size_t{h} * dim_tiles() + dim_tile) * open_bytes();
  }
  element* open_page(std::uint32_t h, std::uint32_t dim_tile) {
    return reinterpret_cast<element*>(open_.data() + open_offset(h, dim_tile));
  }

  // Copies tokens [first, first + chunk) of x [*, kv_heads, head_dim] to the page of one tile, from its token `to` on.
  void copy_tokens(element* page, std::uint32_t to, std::span<const element> x, std::uint32_t first,
                   std::uint32_t chunk, std::uint32_t h, std::uint32_t dim_tile) const {
    const std::size_t head_dim = std::size_t{dim_tiles()} * tile_.dims;
    for (std::uint32_t t = 0; t < chunk; ++t) {
      const element* row = x.data() + (std::size_t{first + t} * kv_heads_ + h) * head_dim +
                           std::size_t{dim_tile} * tile_.dims;
      for (std::uint32_t i = 0; i < tile_.dims; ++i) {
        page[tile_.offset(to + t, i)] = row[i];
      }
    }
  }

  template <PageStore Store>
  void fill_open(std::uint32_t to, std::span<const element> x, std::uint32_t first,
                 std::uint32_t chunk) {
    if constexpr (Store::holds_data) {
      for (std::uint32_t h = 0; chunk > 0 && h < kv_heads_; ++h) {
        for (std::uint32_t dim_tile = 0; dim_tile < dim_tiles(); ++dim_tile) {
          copy_tokens(open_page(h, dim_tile), to, x, first, chunk, h, dim_tile);
        }
      }
    }
  }

  // Writes an open page that is full to the page that it becomes.
  void seal(std::uint32_t h, std::uint32_t dim_tile, std::span<std::byte> page) {
    if constexpr (Format::plain) {
      std::memcpy(page.data(), open_page(h, dim_tile), page_bytes_);
    } else {
      Format::codec::encode({open_page(h, dim_tile), tile_.elements()}, page);
    }
  }

  // Channels are striped so that the pages of one head in consecutive tiles, those of its dim tiles, and those of neighbouring
  // heads each go round all channels; V starts half a round away from K.
  std::uint32_t channel_of(std::uint32_t token_tile, std::uint32_t h, std::uint32_t dim_tile,
                           std::uint32_t start_channel, std::uint32_t channels) const {
    return start_channel + token_tile + h + dim_tile +
           (kind_ == stream::v_by_token ? channels / 2 : 0);
  }

  // Writes the next `tiles` tiles of all heads; fill(i, h, dim_tile, page) gives the i-th one's bytes. Pages are taken head by
  // head: what one head reads in sequence then lies in sequence in a store's memory, too.
  template <PageStore Store, class Fill>
  void write_tiles(Store& store, std::uint32_t start_channel, std::uint32_t tiles,
                   std::vector<page_id>& written, Fill&& fill) {
    const std::uint32_t first_tile = sealed_tokens_ / tile_.tokens;
    table_.resize(table_.size() + tiles * pages_per_tile());
    for (std::uint32_t h = 0; h < kv_heads_; ++h) {
      for (std::uint32_t dim_tile = 0; dim_tile < dim_tiles(); ++dim_tile) {
        for (std::uint32_t i = 0; i < tiles; ++i) {
          const std::uint32_t token_tile = first_tile + i;
          const page_id page =
              store.allocate(channel_of(token_tile, h, dim_tile, start_channel, store.channels()));
          if constexpr (Store::holds_data) {
            fill(i, h, dim_tile, store.write(page));
          }
          table_[at(token_tile, h, dim_tile)] = page;
          written.push_back(page);
        }
      }
    }
    sealed_tokens_ += tiles * tile_.tokens;
  }

  stream kind_;
  layout::tile tile_;
  std::uint32_t page_bytes_;
  std::uint32_t kv_heads_;
  std::uint32_t sealed_tokens_ = 0;
  std::uint32_t reclaimed_tiles_ = 0;
  std::vector<page_id> table_;   // [token_tile, kv_heads, dim_tiles]
  std::vector<std::byte> open_;  // [kv_heads, dim_tiles, open_bytes]
};

}  // namespace instinfer::store
