#pragma once
// long because: every call keeps the table, the open pages and the sealed tokens in step.
// The pages of one stream (K by token, K by dim, V) in one layer of one sequence: L2P entries of
// sealed pages, and the open page of every head. Pages of K by token may hold V, too.

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "instinfer/layout/head_pages.hpp"
#include "instinfer/layout/page_reader.hpp"
#include "instinfer/store/layer/column_strip.hpp"
#include "instinfer/store/layer/open_pages.hpp"
#include "instinfer/store/layer/page_grid.hpp"
#include "instinfer/store/layer/page_rows.hpp"
#include "instinfer/store/layer/page_table.hpp"
#include "instinfer/store/pages/concepts.hpp"

namespace instinfer::store {

// Tokens are appended in order. When a tile of tokens is complete, the pages of all heads are
// written together. With a codec, sealing encodes the values once.
template <class Format>
class stream_cache {
 public:
  using element = typename Format::element;
  using stored_element = typename Format::decoded::element;  // can hold every stored value exactly

  // `guest`: the tile of V if the pages of this stream hold fused rows. Token number 0 is at
  // position `base` of the sequence.
  stream_cache(stream kind, const layout::tile& tile, std::uint32_t page_bytes,
               std::uint32_t kv_heads, const layout::tile& guest, std::uint64_t base)
      : grid_{kind,     tile,  page_bytes,
              kv_heads, guest, tile.stored() ? static_cast<std::uint32_t>(base / tile.tokens) : 0},
        table_{grid_.pages_per_tile()},
        open_{grid_} {}

  using token_values = store::token_values<element>;

  bool stored() const { return grid_.stored(); }
  stream kind() const { return grid_.kind; }
  const layout::tile& tile() const { return grid_.tile; }
  const page_grid<Format>& grid() const { return grid_; }
  std::uint32_t sealed_tokens() const { return sealed_tokens_; }
  const open_pages<Format>& open() const { return open_; }

  // Pages that appending `count` tokens to `have` tokens seals.
  std::uint64_t pages_to_append(std::uint32_t have, std::uint32_t count) const {
    const std::uint64_t tiles =
        (std::uint64_t{have} + count) / grid_.tile.tokens - sealed_tokens_ / grid_.tile.tokens;
    return tiles * grid_.pages_per_tile();
  }

  // Allocates all memory that append needs.
  void reserve(std::uint32_t have, std::uint32_t count, bool holds_data) {
    table_.reserve(pages_to_append(have, count));
    if (holds_data) {
      open_.reserve(have % grid_.tile.tokens, count);
      strip_.reserve(grid_.tile, grid_.dim_tiles() * grid_.tile.dims, count);
    }
  }

  // Allocates all memory that truncate needs.
  void reserve_truncate(std::uint32_t have, std::uint32_t tokens, bool holds_data) {
    if (holds_data) {
      open_.reserve_first(have % grid_.tile.tokens, reopened(tokens));
    }
  }

  // Appends the rows x of `count` tokens to the `have` tokens: first to the end of the open tile,
  // then whole tiles without the buffer, then the start of the next open tile. Calls sealed() after
  // the open tile was written, while its open pages still exist.
  template <PageStore Store, class Sealed>
  void append(Store& store, std::uint32_t start_channel, const token_values& x, std::uint32_t have,
              std::uint32_t count, std::vector<page_id>& written, Sealed&& sealed) {
    const std::uint32_t at = have % grid_.tile.tokens;
    std::uint32_t done = at == 0 ? 0 : std::min(grid_.tile.tokens - at, count);
    fill_open<Store>(at, x, {0, done});
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
          const index_run all{done, done + whole * grid_.tile.tokens};
          if constexpr (Format::plain) {
            copy_tokens(reinterpret_cast<element*>(page.data()), grid_.tile, 0, x, all, first,
                        grid_.tile.tokens, h, dim_tile);
          } else {  // through the open page, which is free now
            copy_tokens(open_.page(h, dim_tile), grid_.tile, 0, x, all, first, grid_.tile.tokens, h,
                        dim_tile);
            seal(h, dim_tile, page);
          }
        });
    done += whole * grid_.tile.tokens;
    fill_open<Store>(0, x, {done, count});
    strip_.free();
  }

  // Releases the pages with all tokens before `new_first`.
  template <PageStore Store>
  void reclaim(Store& store, std::uint32_t new_first) {
    table_.reclaim(store, std::min(new_first, sealed_tokens_) / grid_.tile.tokens);
  }

  // Whether going back to the first `tokens` tokens cuts a sealed tile, which must then be opened.
  bool cuts_sealed(std::uint32_t tokens) const {
    return tokens < sealed_tokens_ && tokens % grid_.tile.tokens > 0;
  }
  // The tokens of its tile that stay.
  std::uint32_t reopened(std::uint32_t tokens) const {
    return cuts_sealed(tokens) ? tokens % grid_.tile.tokens : 0;
  }

  // Goes back to the first `tokens` tokens. The tokens that stay of a cut tile go back to the open
  // page: with a codec they are decoded, and rounded to `element`. Calls opened() when they are
  // there, and still in the sealed page. open() must have room for them.
  template <PageStore Store, class Opened>
  void truncate(Store& store, std::uint32_t tokens, Opened&& opened) {
    if (tokens >= sealed_tokens_) {
      return;
    }
    const std::uint32_t tiles = tokens / grid_.tile.tokens;
    if constexpr (Store::holds_data) {
      if (cuts_sealed(tokens)) {
        for (std::uint32_t h = 0; h < grid_.kv_heads; ++h) {
          for (std::uint32_t dim_tile = 0; dim_tile < grid_.dim_tiles(); ++dim_tile) {
            reopen(h, dim_tile, store.view(table_[grid_.at(tiles, h, dim_tile)]).data(),
                   reopened(tokens));
          }
        }
        opened();
      }
    }
    table_.truncate(store, tiles);
    sealed_tokens_ = tiles * grid_.tile.tokens;
  }

  // Adds the sealed pages of all heads with tokens of a run to `pages`.
  void list_pages(index_run run, std::vector<page_id>& pages) const {
    const std::uint32_t last = std::min(run.last, sealed_tokens_);
    for (std::uint32_t t = run.first / grid_.tile.tokens;
         run.first < last && t * grid_.tile.tokens < last; ++t) {
      const auto tile =
          table_.pages().subspan(grid_.at(t - table_.first_tile(), 0, 0), grid_.pages_per_tile());
      pages.insert(pages.end(), tile.begin(), tile.end());
    }
  }

  // Token n, a multiple of the tile's, gets the number 0. All tokens before it must be reclaimed.
  void rebase(std::uint32_t n) {
    table_.rebase(n / grid_.tile.tokens);
    sealed_tokens_ -= n;
    grid_.tiles_before += n / grid_.tile.tokens;
  }

  template <PageStore Store>
  void release_all(Store& store) {
    table_.release_all(store);
  }

  layout::stream_pages head(std::uint32_t h) const {
    return {.table = table_.pages(),
            .first_tile = table_.first_tile(),
            .open = open_.at(h, 0),
            .open_tile = open_.tile(),
            .open_bytes = static_cast<std::uint32_t>(open_.page_bytes()),
            .sealed_tokens = sealed_tokens_,
            .dim_tiles = grid_.dim_tiles(),
            .kv_heads = grid_.kv_heads,
            .head = h};
  }

  // One token's row [head_dim] as stored: from the group buffer if `open`, otherwise from the
  // store.
  void read_row(layout::page_source pages, std::uint32_t h, std::uint32_t token, bool open,
                std::span<stored_element> row) const {
    const layout::tile& tile = open ? open_.tile() : grid_.tile;
    for (std::uint32_t dim_tile = 0; dim_tile < grid_.dim_tiles(); ++dim_tile) {
      read_tile(pages, h, token, dim_tile, open, tile, grid_.kind,
                row.subspan(dim_tile * tile.dims));
    }
  }
  // The same for V in the pages of K.
  void read_guest_row(layout::page_source pages, std::uint32_t h, std::uint32_t token, bool open,
                      std::span<stored_element> row) const {
    read_tile(pages, h, token, 0, open, grid_.guest, stream::v_by_token, row);
  }

  // Sealed pages of one head with tokens of a run.
  std::uint64_t pages_of(index_run run) const {
    const std::uint32_t last = std::min(run.last, sealed_tokens_);
    return !stored() || run.first >= last
               ? 0
               : std::uint64_t{(last - 1) / grid_.tile.tokens - run.first / grid_.tile.tokens + 1} *
                     grid_.dim_tiles();
  }

  // Reorders the run's tokens of one head: token run.first + i gets row order[i] of the rows of the
  // run. Sealed pages are written again, and pages_of(run) pages must be free for them. Open
  // pages are changed in place. A store without data has no rows.
  template <PageStore Store>
  void reorder(Store& store, std::uint32_t start_channel, std::uint32_t h, index_run run,
               const token_values& rows, std::span<const std::uint32_t> order,
               std::vector<page_id>& written) {
    static_assert(
        Format::plain,
        "instinfer: clustered caches store fp32, fp16 or bf16: a codec would round once more, see store/layer/stream_cache.hpp");
    for (std::uint32_t t = run.first / grid_.tile.tokens; t * grid_.tile.tokens < run.last; ++t) {
      const bool open = t * grid_.tile.tokens >= sealed_tokens_;
      const layout::tile tile = open ? open_.tile() : grid_.tile;
      for (std::uint32_t dim_tile = 0; dim_tile < grid_.dim_tiles(); ++dim_tile) {
        element* page = nullptr;
        if (open) {
          page = Store::holds_data ? open_.page(h, dim_tile) : nullptr;
        } else {
          page_id& entry = table_[grid_.at(t, h, dim_tile)];
          const page_id old = std::exchange(
              entry,
              store.allocate(grid_.channel_of(t, h, dim_tile, start_channel, store.channels())));
          if constexpr (Store::holds_data) {
            const std::span<std::byte> fresh = store.write(entry);
            std::ranges::copy(store.view(old), fresh.begin());
            page = reinterpret_cast<element*>(fresh.data());
          }
          store.release(old);
          written.push_back(entry);
        }
        for (std::uint32_t token = std::max(run.first, t * grid_.tile.tokens);
             page != nullptr && token < std::min(run.last, (t + 1) * grid_.tile.tokens); ++token) {
          copy_rows(grid_, page, tile, token % grid_.tile.tokens, rows, order[token - run.first], 1,
                    dim_tile);
        }
      }
    }
  }

  // Of a copy that is a fork of a stream with `have` tokens: open pages with room for no more than
  // their tokens.
  void trim_open(std::uint32_t have) {
    if (!open_.bytes().empty()) {
      open_ = open_.first(have % grid_.tile.tokens);
    }
  }
  // The table's entries, also those of reclaimed pages.
  std::span<const page_id> pages() const { return table_.pages(); }

  // Sealed pages that were not reclaimed.
  std::uint64_t live_pages() const {
    return (sealed_tokens_ / grid_.tile.tokens - table_.reclaimed_tiles()) * grid_.pages_per_tile();
  }

  // Calls write(bytes) for every live page, then for the open pages if they hold any of the `have`
  // tokens.
  template <PageStore Store, class Write>
  void save(const Store& store, std::uint32_t have, Write&& write) const {
    for (std::uint32_t h = 0; h < grid_.kv_heads; ++h) {
      for (std::uint32_t dim_tile = 0; dim_tile < grid_.dim_tiles(); ++dim_tile) {
        for (std::uint32_t t = table_.reclaimed_tiles(); t < sealed_tokens_ / grid_.tile.tokens;
             ++t) {
          write(store.view(table_[grid_.at(t, h, dim_tile)]).first(grid_.used_bytes()));
        }
      }
    }
    if (have % grid_.tile.tokens > 0) {
      write(open_.first(have % grid_.tile.tokens).bytes());
    }
  }

  // Turns an empty stream into one with tokens [first, have): read(bytes) fills the bytes that save
  // passed to write, in the same order. If it throws, release_all frees the pages.
  template <PageStore Store, class Read>
  void load(Store& store, std::uint32_t start_channel, std::uint32_t first, std::uint32_t have,
            std::vector<page_id>& written, Read&& read) {
    const std::uint32_t reclaimed = std::min(first, have) / grid_.tile.tokens;
    sealed_tokens_ = reclaimed * grid_.tile.tokens;
    table_.begin_at(reclaimed);
    write_tiles(store, start_channel, have / grid_.tile.tokens - reclaimed, written,
                [&](std::uint32_t, std::uint32_t, std::uint32_t, std::span<std::byte> page) {
                  read(page.first(grid_.used_bytes()));
                });
    if (have % grid_.tile.tokens > 0) {
      open_.resize(have % grid_.tile.tokens);
      read(open_.bytes());
    }
  }

  // The numbers of the sealed pages that were not reclaimed.
  std::span<const page_id> live() const {
    return table_.pages().last(static_cast<std::size_t>(live_pages()));
  }
  // As save and load, with the numbers of pages in place of their bytes
  // (store/sequences/commit.hpp).
  template <class File>
  void write_state(std::uint32_t have, File& to) const {
    to.bytes(std::as_bytes(live()));
    if (have % grid_.tile.tokens > 0) {
      to.bytes(open_.first(have % grid_.tile.tokens).bytes());
    }
  }
  template <class File>
  void read_state(std::uint32_t first, std::uint32_t have, File& from) {
    const std::uint32_t reclaimed = std::min(first, have) / grid_.tile.tokens;
    const std::uint32_t tiles = have / grid_.tile.tokens;
    sealed_tokens_ = tiles * grid_.tile.tokens;
    table_.begin_at(reclaimed);
    table_.add((tiles - reclaimed) * grid_.pages_per_tile());
    from.bytes(std::as_writable_bytes(table_.pages()));
    if (have % grid_.tile.tokens > 0) {
      open_.resize(have % grid_.tile.tokens);
      from.bytes(open_.bytes());
    }
  }

  // DRAM of the open pages and the L2P entries.
  std::uint64_t resident_bytes() const {
    return open_.bytes().size() + table_.pages().size_bytes();
  }

 private:
  // Copies tokens [first, first + chunk) of x to the page of one tile, starting at its token `to`.
  // The tokens of `all` come to the pages of the same dims one part after the other.
  void copy_tokens(element* page, const layout::tile& tile, std::uint32_t to, const token_values& x,
                   index_run all, std::uint32_t first, std::uint32_t chunk, std::uint32_t h,
                   std::uint32_t dim_tile) {
    const auto row = [&](std::uint32_t t) { return std::size_t{t} * grid_.kv_heads + h; };
    if (!strip_.serves(tile, all.size())) {
      copy_rows(grid_, page, tile, to, x, row(first), chunk, dim_tile);
      return;
    }
    if (dim_tile == 0 && first == all.first) {
      const std::uint32_t head_dim = grid_.dim_tiles() * tile.dims;
      strip_.fill(x.own.data() + row(first) * head_dim, std::size_t{grid_.kv_heads} * head_dim,
                  head_dim, all.size());
    }
    layout::tile as = tile;
    as.origin += to;
    layout::copy_tile(strip_.at(dim_tile * tile.dims, first - all.first, all.size()),
                      strip_.tile(chunk, tile.dims, all.size()), page, as, chunk);
  }

  // The row of one token in one page, whose entries lie as `tile` says.
  void read_tile(layout::page_source pages, std::uint32_t h, std::uint32_t token,
                 std::uint32_t dim_tile, bool open, const layout::tile& tile, stream kind,
                 std::span<stored_element> row) const {
    const std::uint32_t t = token % tile.tokens;
    const std::byte* bytes =
        open ? open_.at(h, dim_tile) : pages(table_[grid_.at(token / tile.tokens, h, dim_tile)]);
    copy_entries<Format>(
        layout::make_view<Format>(bytes, tile, tile.tokens, grid_.page_bytes, open, kind), t, row);
  }

  template <PageStore Store>
  void fill_open(std::uint32_t to, const token_values& x, index_run tokens) {
    if constexpr (Store::holds_data) {
      const layout::tile& tile = open_.tile();
      for (std::uint32_t h = 0; tokens.size() > 0 && h < grid_.kv_heads; ++h) {
        for (std::uint32_t dim_tile = 0; dim_tile < grid_.dim_tiles(); ++dim_tile) {
          copy_tokens(open_.page(h, dim_tile), tile, to, x, tokens, tokens.first, tokens.size(), h,
                      dim_tile);
        }
      }
    }
  }

  // Writes a full open page to its sealed page.
  void seal(std::uint32_t h, std::uint32_t dim_tile, std::span<std::byte> page) {
    if constexpr (Format::plain) {
      std::memcpy(page.data(), open_.page(h, dim_tile), grid_.page_bytes);
    } else {
      const std::span<const element> values{open_.page(h, dim_tile), grid_.elements()};
      if constexpr (dim_bytes<typename Format::codec> > 0) {
        if (grid_.kind == stream::k_by_token) {
          const layout::tile& k = grid_.tile;
          Format::codec::encode(values, {k.tokens, k.dims, k.token_stride, k.origin}, page);
          return;
        }
      }
      Format::codec::encode(values, page);
    }
  }

  // Writes the first n tokens of a sealed page to its open page.
  void reopen(std::uint32_t h, std::uint32_t dim_tile, const std::byte* sealed, std::uint32_t n) {
    element* page = open_.page(h, dim_tile);
    const auto copy = [&](const layout::tile& tile, const layout::tile& to, stream kind) {
      if constexpr (Format::plain) {
        layout::copy_tile(reinterpret_cast<const element*>(sealed), tile, page, to, n);
      } else {
        const auto from =
            layout::make_view<Format>(sealed, tile, tile.tokens, grid_.page_bytes, false, kind);
        for (std::uint32_t t = 0; t < n; ++t) {
          for (std::uint32_t i = 0; i < tile.dims; ++i) {
            page[to.offset(t, i)] = held<typename Format::codec>(from(t, i));
          }
        }
      }
    };
    copy(grid_.tile, open_.tile(), grid_.kind);
    if (grid_.guest.stored()) {  // its rows have the same strides in open pages
      copy(grid_.guest, grid_.guest, stream::v_by_token);
    }
  }

  // Writes the next `tiles` tiles of all heads; fill(i, h, dim_tile, page) writes the bytes of tile
  // i. Pages are allocated head by head, so pages that a head reads in sequence are also in
  // sequence in the store's memory.
  template <PageStore Store, class Fill>
  void write_tiles(Store& store, std::uint32_t start_channel, std::uint32_t tiles,
                   std::vector<page_id>& written, Fill&& fill) {
    const std::uint32_t first_tile = sealed_tokens_ / grid_.tile.tokens;
    table_.add(tiles * grid_.pages_per_tile());
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
  page_table table_;
  open_pages<Format> open_;
  column_strip<element> strip_;  // during an append
  std::uint32_t sealed_tokens_ = 0;
};

}  // namespace instinfer::store
