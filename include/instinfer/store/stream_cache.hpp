#pragma once
// The pages of one stream (K by token, K by dim, V) in one layer of one sequence: L2P entries of
// sealed pages, and the open page of every head in the group buffer (InstInfer §IV-C).

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "instinfer/core/scratch.hpp"
#include "instinfer/layout/head_pages.hpp"
#include "instinfer/layout/page_reader.hpp"
#include "instinfer/store/concepts.hpp"
#include "instinfer/store/page_grid.hpp"

namespace instinfer::store {

// Tokens are appended in order. An open page has the layout of the sealed page it will become. When
// a tile of tokens is complete, the pages of all heads are written together. With a codec, open
// pages hold the values as appended, and sealing encodes them once.
template <class Format>
class stream_cache {
 public:
  using element = typename Format::element;
  using stored_element = typename Format::decoded::element;  // can hold every stored value exactly

  stream_cache(stream kind, const layout::tile& tile, std::uint32_t page_bytes,
               std::uint32_t kv_heads)
      : grid_{kind, tile, page_bytes, kv_heads} {}

  bool stored() const { return grid_.stored(); }
  stream kind() const { return grid_.kind; }
  const layout::tile& tile() const { return grid_.tile; }
  const page_grid<Format>& grid() const { return grid_; }
  std::uint32_t sealed_tokens() const { return sealed_tokens_; }

  // Pages that appending `count` tokens to `have` tokens seals.
  std::uint64_t pages_to_append(std::uint32_t have, std::uint32_t count) const {
    const std::uint64_t tiles =
        (std::uint64_t{have} + count) / grid_.tile.tokens - sealed_tokens_ / grid_.tile.tokens;
    return tiles * grid_.pages_per_tile();
  }

  // Allocates all memory that append needs.
  void reserve(std::uint32_t have, std::uint32_t count, bool holds_data) {
    reserve_scratch(table_, table_.size() + pages_to_append(have, count));
    if (holds_data) {
      open_.resize(grid_.pages_per_tile() * grid_.open_bytes());
    }
  }

  // Appends x [count, kv_heads, head_dim] to the `have` tokens: first to the end of the open tile,
  // then whole tiles without the buffer, then the start of the next open tile. Calls sealed() after
  // the open tile was written, while its open pages still exist.
  template <PageStore Store, class Sealed>
  void append(Store& store, std::uint32_t start_channel, std::span<const element> x,
              std::uint32_t have, std::uint32_t count, std::vector<page_id>& written,
              Sealed&& sealed) {
    const std::uint32_t at = have % grid_.tile.tokens;
    std::uint32_t done = at == 0 ? 0 : std::min(grid_.tile.tokens - at, count);
    fill_open<Store>(at, x, 0, done);
    if (at > 0 && at + done == grid_.tile.tokens) {
      write_tiles(store, start_channel, 1, written,
                  [&](std::uint32_t, std::uint32_t h, std::uint32_t dim_tile,
                      std::span<std::byte> page) { seal(h, dim_tile, page); });
      sealed();
    }
    const std::uint32_t whole = (count - done) / grid_.tile.tokens;
    write_tiles(
        store, start_channel, whole, written,
        [&](std::uint32_t i, std::uint32_t h, std::uint32_t dim_tile, std::span<std::byte> page) {
          const std::uint32_t first = done + i * grid_.tile.tokens;
          if constexpr (Format::plain) {
            copy_tokens(reinterpret_cast<element*>(page.data()), 0, x, first, grid_.tile.tokens, h,
                        dim_tile);
          } else {  // through the open page, which is free now
            copy_tokens(open_page(h, dim_tile), 0, x, first, grid_.tile.tokens, h, dim_tile);
            seal(h, dim_tile, page);
          }
        });
    done += whole * grid_.tile.tokens;
    fill_open<Store>(0, x, done, count - done);
  }

  // Releases the pages with all tokens before `new_first`.
  template <PageStore Store>
  void reclaim(Store& store, std::uint32_t new_first) {
    const std::uint32_t tiles = std::min(new_first, sealed_tokens_) / grid_.tile.tokens;
    for (std::size_t i = std::size_t{reclaimed_tiles_} * grid_.pages_per_tile();
         i < tiles * grid_.pages_per_tile(); ++i) {
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
            .open = open_.empty() ? nullptr : open_.data() + grid_.open_offset(h, 0),
            .open_bytes = static_cast<std::uint32_t>(grid_.open_bytes()),
            .sealed_tokens = sealed_tokens_,
            .dim_tiles = grid_.dim_tiles(),
            .kv_heads = grid_.kv_heads,
            .head = h};
  }

  // One token's row [head_dim] as stored: from the group buffer if `open`, otherwise from the
  // store.
  void read_row(layout::page_source pages, std::uint32_t h, std::uint32_t token, bool open,
                std::span<stored_element> row) const {
    const std::uint32_t token_tile = token / grid_.tile.tokens;
    const std::uint32_t t = token % grid_.tile.tokens;
    for (std::uint32_t dim_tile = 0; dim_tile < grid_.dim_tiles(); ++dim_tile) {
      const std::byte* bytes = open ? open_.data() + grid_.open_offset(h, dim_tile)
                                    : pages(table_[grid_.at(token_tile, h, dim_tile)]);
      const auto page =
          layout::make_view<Format>(bytes, grid_.tile, grid_.tile.tokens, grid_.page_bytes, open);
      for (std::uint32_t i = 0; i < grid_.tile.dims; ++i) {
        stored_element& to = row[dim_tile * grid_.tile.dims + i];
        if constexpr (Format::plain) {
          to = page.data[grid_.tile.offset(t, i)];
        } else {
          to = page(t, i);
        }
      }
    }
  }

  // Sealed pages of one head with tokens of a run.
  std::uint64_t pages_of(index_run run) const {
    const std::uint32_t last = std::min(run.last, sealed_tokens_);
    return !stored() || run.first >= last
               ? 0
               : std::uint64_t{(last - 1) / grid_.tile.tokens - run.first / grid_.tile.tokens + 1} *
                     grid_.dim_tiles();
  }

  // Reorders the run's tokens of one head: token run.first + i gets row order[i] of `rows` [run,
  // head_dim]. Sealed pages are written again, and pages_of(run) pages must be free for them. Open
  // pages are changed in place.
  template <PageStore Store>
  void reorder(Store& store, std::uint32_t start_channel, std::uint32_t h, index_run run,
               std::span<const element> rows, std::span<const std::uint32_t> order,
               std::vector<page_id>& written) {
    static_assert(
        Format::plain,
        "instinfer: clustered caches store fp32, fp16 or bf16: a codec would round once more, see store/stream_cache.hpp");
    const std::size_t head_dim = std::size_t{grid_.dim_tiles()} * grid_.tile.dims;
    for (std::uint32_t t = run.first / grid_.tile.tokens; t * grid_.tile.tokens < run.last; ++t) {
      for (std::uint32_t dim_tile = 0; dim_tile < grid_.dim_tiles(); ++dim_tile) {
        element* page = open_page(h, dim_tile);
        if (t * grid_.tile.tokens < sealed_tokens_) {
          const page_id old = std::exchange(
              table_[grid_.at(t, h, dim_tile)],
              store.allocate(grid_.channel_of(t, h, dim_tile, start_channel, store.channels())));
          const std::span<std::byte> fresh = store.write(table_[grid_.at(t, h, dim_tile)]);
          std::ranges::copy(store.view(old), fresh.begin());
          page = reinterpret_cast<element*>(fresh.data());
          store.release(old);
          written.push_back(table_[grid_.at(t, h, dim_tile)]);
        }
        for (std::uint32_t token = std::max(run.first, t * grid_.tile.tokens);
             token < std::min(run.last, (t + 1) * grid_.tile.tokens); ++token) {
          const element* row = rows.data() + order[token - run.first] * head_dim +
                               std::size_t{dim_tile} * grid_.tile.dims;
          for (std::uint32_t i = 0; i < grid_.tile.dims; ++i) {
            page[grid_.tile.offset(token % grid_.tile.tokens, i)] = row[i];
          }
        }
      }
    }
  }

  // Sealed pages that were not reclaimed.
  std::uint64_t live_pages() const {
    return (sealed_tokens_ / grid_.tile.tokens - reclaimed_tiles_) * grid_.pages_per_tile();
  }

  // Calls write(bytes) for every live page, then for the open pages if they hold any of the `have`
  // tokens.
  template <PageStore Store, class Write>
  void save(const Store& store, std::uint32_t have, Write&& write) const {
    for (std::uint32_t h = 0; h < grid_.kv_heads; ++h) {
      for (std::uint32_t dim_tile = 0; dim_tile < grid_.dim_tiles(); ++dim_tile) {
        for (std::uint32_t t = reclaimed_tiles_; t < sealed_tokens_ / grid_.tile.tokens; ++t) {
          write(store.view(table_[grid_.at(t, h, dim_tile)]).first(grid_.used_bytes()));
        }
      }
    }
    if (have % grid_.tile.tokens > 0) {
      write(std::span(open_));
    }
  }

  // Turns an empty stream into one with tokens [first, have): read(bytes) fills the bytes that save
  // passed to write, in the same order. If it throws, release_all frees the pages.
  template <PageStore Store, class Read>
  void load(Store& store, std::uint32_t start_channel, std::uint32_t first, std::uint32_t have,
            std::vector<page_id>& written, Read&& read) {
    reclaimed_tiles_ = std::min(first, have) / grid_.tile.tokens;
    sealed_tokens_ = reclaimed_tiles_ * grid_.tile.tokens;
    table_.assign(reclaimed_tiles_ * grid_.pages_per_tile(), no_page);
    write_tiles(store, start_channel, have / grid_.tile.tokens - reclaimed_tiles_, written,
                [&](std::uint32_t, std::uint32_t, std::uint32_t, std::span<std::byte> page) {
                  read(page.first(grid_.used_bytes()));
                });
    if (have % grid_.tile.tokens > 0) {
      open_.resize(grid_.pages_per_tile() * grid_.open_bytes());
      read(std::span(open_));
    }
  }

  // DRAM of the open pages and the L2P entries.
  std::uint64_t resident_bytes() const { return open_.size() + table_.size() * sizeof(page_id); }

 private:
  element* open_page(std::uint32_t h, std::uint32_t dim_tile) {
    return reinterpret_cast<element*>(open_.data() + grid_.open_offset(h, dim_tile));
  }

  // Copies tokens [first, first + chunk) of x [*, kv_heads, head_dim] to the page of one tile,
  // starting at its token `to`.
  void copy_tokens(element* page, std::uint32_t to, std::span<const element> x, std::uint32_t first,
                   std::uint32_t chunk, std::uint32_t h, std::uint32_t dim_tile) const {
    const std::size_t head_dim = std::size_t{grid_.dim_tiles()} * grid_.tile.dims;
    for (std::uint32_t t = 0; t < chunk; ++t) {
      const element* row = x.data() + (std::size_t{first + t} * grid_.kv_heads + h) * head_dim +
                           std::size_t{dim_tile} * grid_.tile.dims;
      for (std::uint32_t i = 0; i < grid_.tile.dims; ++i) {
        page[grid_.tile.offset(to + t, i)] = row[i];
      }
    }
  }

  template <PageStore Store>
  void fill_open(std::uint32_t to, std::span<const element> x, std::uint32_t first,
                 std::uint32_t chunk) {
    if constexpr (Store::holds_data) {
      for (std::uint32_t h = 0; chunk > 0 && h < grid_.kv_heads; ++h) {
        for (std::uint32_t dim_tile = 0; dim_tile < grid_.dim_tiles(); ++dim_tile) {
          copy_tokens(open_page(h, dim_tile), to, x, first, chunk, h, dim_tile);
        }
      }
    }
  }

  // Writes a full open page to its sealed page.
  void seal(std::uint32_t h, std::uint32_t dim_tile, std::span<std::byte> page) {
    if constexpr (Format::plain) {
      std::memcpy(page.data(), open_page(h, dim_tile), grid_.page_bytes);
    } else {
      Format::codec::encode({open_page(h, dim_tile), grid_.tile.elements()}, page);
    }
  }

  // Writes the next `tiles` tiles of all heads; fill(i, h, dim_tile, page) writes the bytes of tile
  // i. Pages are allocated head by head, so pages that a head reads in sequence are also in
  // sequence in the store's memory.
  template <PageStore Store, class Fill>
  void write_tiles(Store& store, std::uint32_t start_channel, std::uint32_t tiles,
                   std::vector<page_id>& written, Fill&& fill) {
    const std::uint32_t first_tile = sealed_tokens_ / grid_.tile.tokens;
    table_.resize(table_.size() + tiles * grid_.pages_per_tile(), no_page);
    for (std::uint32_t h = 0; h < grid_.kv_heads; ++h) {
      for (std::uint32_t dim_tile = 0; dim_tile < grid_.dim_tiles(); ++dim_tile) {
        for (std::uint32_t i = 0; i < tiles; ++i) {
          const std::uint32_t token_tile = first_tile + i;
          const page_id page = store.allocate(
              grid_.channel_of(token_tile, h, dim_tile, start_channel, store.channels()));
          table_[grid_.at(token_tile, h, dim_tile)] = page;
          written.push_back(page);
          if constexpr (Store::holds_data) {
            fill(i, h, dim_tile, store.write(page));
          }
        }
      }
    }
    sealed_tokens_ += tiles * grid_.tile.tokens;
  }

  page_grid<Format> grid_;
  std::uint32_t sealed_tokens_ = 0;
  std::uint32_t reclaimed_tiles_ = 0;
  std::vector<page_id> table_;   // [token_tile, kv_heads, dim_tiles]
  std::vector<std::byte> open_;  // [kv_heads, dim_tiles, open_bytes]
};

}  // namespace instinfer::store
