#pragma once
// The cache of one layer of one sequence: L2P entries of its sealed pages, the group buffer with the open page of every
// head and stream (InstInfer §IV-C), and the summaries of its heads.

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "instinfer/attention/summaries.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/core/traffic.hpp"
#include "instinfer/layout/head_pages.hpp"
#include "instinfer/store/concepts.hpp"

namespace instinfer::store {

// Tokens enter in order. An open page has the layout of the sealed page it becomes; when a tile of tokens is complete,
// the pages of all heads are written together.
template <class Format, class SummaryStates>
class layer_cache {
 public:
  using element = typename Format::element;
  using format = Format;

  layer_cache(const layout::tiling& tiles, std::uint32_t page_bytes, std::uint32_t kv_heads)
      : tiles_{tiles}, page_bytes_{page_bytes}, kv_heads_{kv_heads}, summaries_(kv_heads) {}

  std::uint32_t first() const { return first_; }
  std::uint32_t tokens() const { return tokens_; }

  // Pages that sealing takes when `count` more tokens arrive.
  std::uint64_t pages_to_append(std::uint32_t count) const {
    std::uint64_t pages = 0;
    for_each_stream([&](stream s, const layout::tile&) { pages += pages_to_append(s, count); });
    return pages;
  }

  // Takes all memory that append(count) will need, so that append itself cannot fail half-way.
  void reserve(std::uint32_t count, bool holds_data, std::vector<page_id>& written) {
    reserve_scratch(written, written.size() + pages_to_append(count));
    for_each_stream([&](stream s, const layout::tile&) {
      reserve_scratch(sealed(s).table, sealed(s).table.size() + pages_to_append(s, count));
      if (holds_data) {
        sealed(s).open.resize(pages_per_tile(s) * page_bytes_);
      }
    });
    for (SummaryStates& states : summaries_) {
      std::apply([&](auto&... s) { (attention::reserve_summary(s, holds_data ? count : 0), ...); },
                 states);
    }
  }

  // Appends k [count, kv_heads, k_dim] and v [count, kv_heads, v_dim], of which a store without data takes none, and index keys
  // [count, any] for the summaries that take them. The
  // caller has called reserve(count), and checked that the store has pages_to_append(count) free pages. `start_channel`
  // shifts the striping.
  template <PageStore Store>
  traffic append(Store& store, std::uint32_t start_channel, std::span<const element> k,
                 std::span<const element> v, std::span<const float> index_keys, std::uint32_t count,
                 std::vector<page_id>& written) {
    const std::size_t pages_before = written.size();
    for_each_stream([&](stream s, const layout::tile& tile) {
      const std::span<const element> x = s == stream::v_by_token ? v : k;
      // Up to the end of the open tile, then whole tiles past the buffer, then what opens the next one.
      const std::uint32_t at = tokens_ % tile.tokens;
      std::uint32_t done = at == 0 ? 0 : std::min(tile.tokens - at, count);
      fill_open<Store>(s, at, x, 0, done);
      if (at > 0 && at + done == tile.tokens) {
        write_tiles(
            store, s, start_channel, 1, written,
            [&](std::uint32_t, std::uint32_t h, std::uint32_t dim_tile, std::span<std::byte> page) {
              std::memcpy(page.data(), sealed(s).open.data() + open_offset(s, h, dim_tile),
                          page_bytes_);
            });
      }
      const std::uint32_t whole = (count - done) / tile.tokens;
      write_tiles(
          store, s, start_channel, whole, written,
          [&](std::uint32_t i, std::uint32_t h, std::uint32_t dim_tile, std::span<std::byte> page) {
            copy_tokens(s, reinterpret_cast<element*>(page.data()), 0, x, done + i * tile.tokens,
                        tile.tokens, h, dim_tile);
          });
      done += whole * tile.tokens;
      fill_open<Store>(s, 0, x, done, count - done);
    });
    if constexpr (Store::holds_data) {
      for (std::uint32_t t = 0; t < count; ++t) {
        for (std::uint32_t h = 0; h < kv_heads_; ++h) {
          const auto row = [&](std::span<const element> x, std::size_t dim) {
            return x.subspan((std::size_t{t} * kv_heads_ + h) * dim, dim);
          };
          const auto index_key =
              index_keys.subspan(t * (index_keys.size() / count), index_keys.size() / count);
          std::apply(
              [&](auto&... s) {
                (attention::append_to(s, row(k, Format::k_dim), row(v, Format::v_dim), index_key),
                 ...);
              },
              summaries_[h]);
        }
      }
    }
    tokens_ += count;
    const std::uint64_t pages = written.size() - pages_before;
    return {.pages_written = pages, .written_bytes = pages * page_bytes_};
  }

  // Whether all summaries can do without the tokens before `new_first`.
  bool may_forget(std::uint32_t new_first) const {
    const auto agrees = [&](const auto& s) {
      if constexpr (requires { s.may_forget(new_first); }) {
        return s.may_forget(new_first);
      }
      return true;
    };
    return std::ranges::all_of(summaries_, [&](const SummaryStates& states) {
      return std::apply([&](const auto&... s) { return (agrees(s) && ...); }, states);
    });
  }

  // Forgets the tokens before `new_first`: summaries at once, pages as soon as all their tokens are forgotten.
  template <PageStore Store>
  void reclaim(Store& store, std::uint32_t new_first) {
    for (std::uint32_t h = 0; h < kv_heads_; ++h) {
      forget(store, h, {first_, new_first}, summaries_[h]);
    }
    first_ = new_first;
    for_each_stream([&](stream s, const layout::tile& tile) {
      const std::uint32_t tiles = std::min(new_first, sealed(s).tokens) / tile.tokens;
      for (std::size_t i = std::size_t{sealed(s).reclaimed_tiles} * pages_per_tile(s);
           i < tiles * pages_per_tile(s); ++i) {
        store.release(std::exchange(sealed(s).table[i], no_page));
      }
      sealed(s).reclaimed_tiles = std::max(sealed(s).reclaimed_tiles, tiles);
    });
  }

  // Releases every page; the object is of no use after that.
  template <PageStore Store>
  void release_all(Store& store) {
    for (sealed_stream& s : streams_) {
      for (const page_id page : s.table) {
        if (page != no_page) {
          store.release(page);
        }
      }
      s.table.clear();
    }
  }

  layout::head_pages head(std::uint32_t h) const {
    layout::head_pages pages{.tiles = tiles_,
                             .page_bytes = page_bytes_,
                             .element_bytes = Format::element_bytes,
                             .first = first_,
                             .tokens = tokens_,
                             .streams = {}};
    for_each_stream([&](stream s, const layout::tile&) {
      const sealed_stream& from = sealed(s);
      pages.streams[static_cast<std::size_t>(s)] = {
          .table = from.table,
          .open = from.open.empty() ? nullptr : from.open.data() + open_offset(s, h, 0),
          .sealed_tokens = from.tokens,
          .dim_tiles = dim_tiles(s),
          .kv_heads = kv_heads_,
          .head = h};
    });
    return pages;
  }

  // Attention feeds back into summaries (observed weights, a block cache), and does not change the cache by that.
  SummaryStates& summaries(std::uint32_t h) const { return summaries_[h]; }

  // The summaries without the tokens at positions from `tokens` on.
  template <PageStore Store>
  SummaryStates summaries_before(const Store& store, std::uint32_t h, std::uint32_t tokens) const {
    SummaryStates before = summaries_[h];
    forget(store, h, {tokens, tokens_}, before);
    return before;
  }

  // Fast memory that the summaries of all heads take.
  std::uint64_t summary_bytes() const {
    std::uint64_t bytes = 0;
    for (const SummaryStates& states : summaries_) {
      std::apply([&](const auto&... s) { ((bytes += attention::summary_bytes(s)), ...); }, states);
    }
    return bytes;
  }

  // DRAM that the group buffer, the L2P entries and the summaries of this layer take.
  std::uint64_t resident_bytes() const {
    std::uint64_t bytes = summary_bytes();
    for (const sealed_stream& s : streams_) {
      bytes += s.open.size() + s.table.size() * sizeof(page_id);
    }
    return bytes;
  }

  // The parts that reordering works on (store/reorder.hpp).
  template <class F>
  void for_each_stream(F&& f) const {
    for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
      if (tiles_.of(s).stored()) {
        f(s, tiles_.of(s));
      }
    }
  }

  std::uint32_t head_dim(stream s) const {
    return static_cast<std::uint32_t>(s == stream::v_by_token ? Format::v_dim : Format::k_dim);
  }
  std::uint32_t dim_tiles(stream s) const { return head_dim(s) / tiles_.of(s).dims; }
  stream key_rows() const {
    return tiles_.k_by_token.stored() ? stream::k_by_token : stream::k_by_dim;
  }
  std::uint32_t sealed_tokens(stream s) const { return sealed(s).tokens; }
  page_id page(stream s, std::uint32_t token_tile, std::uint32_t h, std::uint32_t dim_tile) const {
    return sealed(s).table[table_index(s, token_tile, h, dim_tile)];
  }
  void replace_page(stream s, std::uint32_t token_tile, std::uint32_t h, std::uint32_t dim_tile,
                    page_id page) {
    sealed(s).table[table_index(s, token_tile, h, dim_tile)] = page;
  }
  std::span<std::byte> open_page(stream s, std::uint32_t h, std::uint32_t dim_tile) {
    return std::span(sealed(s).open).subspan(open_offset(s, h, dim_tile), page_bytes_);
  }

  // Channels are striped so that the pages of one head in consecutive tiles, those of its dim tiles, and those of neighbouring
  // heads each go round all channels; V starts half a round away from K.
  static std::uint32_t channel_of(stream s, std::uint32_t token_tile, std::uint32_t h,
                                  std::uint32_t dim_tile, std::uint32_t start_channel,
                                  std::uint32_t channels) {
    return start_channel + token_tile + h + dim_tile + (s == stream::v_by_token ? channels / 2 : 0);
  }

  // One token's row of a stream, [head_dim], read element by element.
  template <PageStore Store>
  void read_row(const Store& store, stream s, std::uint32_t h, std::uint32_t token,
                std::span<element> row) const {
    const layout::tile& tile = tiles_.of(s);
    for (std::uint32_t i = 0; i < row.size(); ++i) {
      const std::uint32_t dim_tile = i / tile.dims;
      const std::byte* from = token < sealed(s).tokens
                                  ? store.view(page(s, token / tile.tokens, h, dim_tile)).data()
                                  : sealed(s).open.data() + open_offset(s, h, dim_tile);
      std::memcpy(
          &row[i],
          from + std::size_t{tile.offset(token % tile.tokens, i % tile.dims)} * sizeof(element),
          sizeof(element));
    }
  }

 private:
  struct sealed_stream {
    std::vector<page_id> table;   // [token_tile, kv_heads, dim_tiles]
    std::vector<std::byte> open;  // [kv_heads, dim_tiles, page_bytes]
    std::uint32_t tokens = 0;     // in sealed tiles
    std::uint32_t reclaimed_tiles = 0;
  };

  sealed_stream& sealed(stream s) { return streams_[static_cast<std::size_t>(s)]; }
  const sealed_stream& sealed(stream s) const { return streams_[static_cast<std::size_t>(s)]; }
  std::uint64_t pages_to_append(stream s, std::uint32_t count) const {
    const std::uint64_t tiles = (std::uint64_t{tokens_} + count) / tiles_.of(s).tokens -
                                sealed(s).tokens / tiles_.of(s).tokens;
    return tiles * pages_per_tile(s);
  }
  std::size_t pages_per_tile(stream s) const { return std::size_t{kv_heads_} * dim_tiles(s); }
  std::size_t table_index(stream s, std::uint32_t token_tile, std::uint32_t h,
                          std::uint32_t dim_tile) const {
    return (std::size_t{token_tile} * kv_heads_ + h) * dim_tiles(s) + dim_tile;
  }
  std::size_t open_offset(stream s, std::uint32_t h, std::uint32_t dim_tile) const {
    return (std::size_t{h} * dim_tiles(s) + dim_tile) * page_bytes_;
  }

  // Copies tokens [first, first + chunk) of x [*, kv_heads, head_dim] to the page of one tile, from its token `at` on.
  void copy_tokens(stream s, element* page, std::uint32_t at, std::span<const element> x,
                   std::uint32_t first, std::uint32_t chunk, std::uint32_t h,
                   std::uint32_t dim_tile) const {
    const layout::tile& tile = tiles_.of(s);
    const std::size_t head_dim = std::size_t{dim_tiles(s)} * tile.dims;
    for (std::uint32_t t = 0; t < chunk; ++t) {
      const element* row = x.data() + (std::size_t{first + t} * kv_heads_ + h) * head_dim +
                           std::size_t{dim_tile} * tile.dims;
      for (std::uint32_t i = 0; i < tile.dims; ++i) {
        page[tile.offset(at + t, i)] = row[i];
      }
    }
  }

  template <PageStore Store>
  void fill_open(stream s, std::uint32_t at, std::span<const element> x, std::uint32_t first,
                 std::uint32_t chunk) {
    if constexpr (Store::holds_data) {
      for (std::uint32_t h = 0; chunk > 0 && h < kv_heads_; ++h) {
        for (std::uint32_t dim_tile = 0; dim_tile < dim_tiles(s); ++dim_tile) {
          auto* page =
              reinterpret_cast<element*>(sealed(s).open.data() + open_offset(s, h, dim_tile));
          copy_tokens(s, page, at, x, first, chunk, h, dim_tile);
        }
      }
    }
  }

  // Writes the next `tiles` tiles of all heads; fill(i, h, dim_tile, page) gives the i-th one's bytes. Pages are taken head by
  // head: what one head reads in sequence then lies in sequence in a store's memory, too.
  template <PageStore Store, class Fill>
  void write_tiles(Store& store, stream s, std::uint32_t start_channel, std::uint32_t tiles,
                   std::vector<page_id>& written, Fill&& fill) {
    sealed_stream& to = sealed(s);
    const std::uint32_t first_tile = to.tokens / tiles_.of(s).tokens;
    to.table.resize(to.table.size() + tiles * pages_per_tile(s));
    for (std::uint32_t h = 0; h < kv_heads_; ++h) {
      for (std::uint32_t dim_tile = 0; dim_tile < dim_tiles(s); ++dim_tile) {
        for (std::uint32_t i = 0; i < tiles; ++i) {
          const std::uint32_t token_tile = first_tile + i;
          const page_id page = store.allocate(
              channel_of(s, token_tile, h, dim_tile, start_channel, store.channels()));
          if constexpr (Store::holds_data) {
            fill(i, h, dim_tile, store.write(page));
          }
          to.table[table_index(s, token_tile, h, dim_tile)] = page;
          written.push_back(page);
        }
      }
    }
    to.tokens += tiles * tiles_.of(s).tokens;
  }

  template <PageStore Store>
  void forget(const Store& store, std::uint32_t h, index_run gone, SummaryStates& summaries) const {
    if constexpr (Store::holds_data && std::tuple_size_v<SummaryStates> > 0) {
      std::array<element, static_cast<std::size_t>(Format::k_dim)> k;
      std::array<element, static_cast<std::size_t>(Format::v_dim)> v;
      for (std::uint32_t token = gone.first; token < gone.last; ++token) {
        read_row(store, key_rows(), h, token, k);
        read_row(store, stream::v_by_token, h, token, v);
        std::apply([&](auto&... s) { (s.forget(k, v), ...); }, summaries);
      }
    }
  }

  layout::tiling tiles_;
  std::uint32_t page_bytes_;
  std::uint32_t kv_heads_;
  std::uint32_t first_ = 0;
  std::uint32_t tokens_ = 0;
  std::array<sealed_stream, stream_count> streams_;
  mutable std::vector<SummaryStates> summaries_;  // [kv_heads]
};

}  // namespace instinfer::store
