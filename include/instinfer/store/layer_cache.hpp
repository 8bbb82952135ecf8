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
  }

  // Appends k [count, kv_heads, k_dim] and v [count, kv_heads, v_dim], of which a store without data takes none. The
  // caller has called reserve(count), and checked that the store has pages_to_append(count) free pages. `start_channel`
  // shifts the striping.
  template <PageStore Store>
  traffic append(Store& store, std::uint32_t start_channel, std::span<const element> k,
                 std::span<const element> v, std::uint32_t count, std::vector<page_id>& written) {
    traffic moved;
    for_each_stream([&](stream s, const layout::tile& tile) {
      const bool is_v = s == stream::v_by_token;
      for (std::uint32_t done = 0; done < count;) {
        const std::uint32_t at = (tokens_ + done) % tile.tokens;
        const std::uint32_t chunk = std::min(tile.tokens - at, count - done);
        if constexpr (Store::holds_data) {
          fill_open(s, tile, at, is_v ? v : k, done, chunk, is_v ? Format::v_dim : Format::k_dim);
        }
        done += chunk;
        if (at + chunk == tile.tokens) {
          moved += seal(store, s, start_channel, written);
        }
      }
    });
    if constexpr (Store::holds_data) {
      for (std::uint32_t t = 0; t < count; ++t) {
        for (std::uint32_t h = 0; h < kv_heads_; ++h) {
          const auto row = [&](std::span<const element> x, std::size_t dim) {
            return x.subspan((std::size_t{t} * kv_heads_ + h) * dim, dim);
          };
          std::apply(
              [&](auto&... s) { (s.append(row(k, Format::k_dim), row(v, Format::v_dim)), ...); },
              summaries_[h]);
        }
      }
    }
    tokens_ += count;
    return moved;
  }

  // Forgets the tokens before `new_first`: summaries at once, pages as soon as all their tokens are forgotten.
  template <PageStore Store>
  void reclaim(Store& store, std::uint32_t new_first) {
    if constexpr (Store::holds_data && std::tuple_size_v<SummaryStates> > 0) {
      forget(store, new_first);
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

  const SummaryStates& summaries(std::uint32_t h) const { return summaries_[h]; }

  // DRAM that the group buffer and the L2P entries of this layer take.
  std::uint64_t resident_bytes() const {
    std::uint64_t bytes = summaries_.size() * sizeof(SummaryStates);
    for (const sealed_stream& s : streams_) {
      bytes += s.open.size() + s.table.size() * sizeof(page_id);
    }
    return bytes;
  }

 private:
  struct sealed_stream {
    std::vector<page_id> table;   // [token_tile, kv_heads, dim_tiles]
    std::vector<std::byte> open;  // [kv_heads, dim_tiles, page_bytes]
    std::uint32_t tokens = 0;     // in sealed tiles
    std::uint32_t reclaimed_tiles = 0;
  };

  template <class F>
  void for_each_stream(F&& f) const {
    for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
      if (tiles_.of(s).stored()) {
        f(s, tiles_.of(s));
      }
    }
  }

  sealed_stream& sealed(stream s) { return streams_[static_cast<std::size_t>(s)]; }
  const sealed_stream& sealed(stream s) const { return streams_[static_cast<std::size_t>(s)]; }
  std::uint32_t dim_tiles(stream s) const {
    const auto head_dim =
        static_cast<std::uint32_t>(s == stream::v_by_token ? Format::v_dim : Format::k_dim);
    return head_dim / tiles_.of(s).dims;
  }
  std::uint64_t pages_to_append(stream s, std::uint32_t count) const {
    const std::uint64_t tiles = (std::uint64_t{tokens_} + count) / tiles_.of(s).tokens -
                                sealed(s).tokens / tiles_.of(s).tokens;
    return tiles * pages_per_tile(s);
  }
  std::size_t pages_per_tile(stream s) const { return std::size_t{kv_heads_} * dim_tiles(s); }
  std::size_t open_offset(stream s, std::uint32_t h, std::uint32_t dim_tile) const {
    return (std::size_t{h} * dim_tiles(s) + dim_tile) * page_bytes_;
  }

  // Copies tokens [done, done + chunk) of x [*, kv_heads, head_dim] to token `at` of the open pages of all heads.
  void fill_open(stream s, const layout::tile& tile, std::uint32_t at, std::span<const element> x,
                 std::uint32_t done, std::uint32_t chunk, std::size_t head_dim) {
    std::vector<std::byte>& open = sealed(s).open;
    for (std::uint32_t h = 0; h < kv_heads_; ++h) {
      for (std::uint32_t dim_tile = 0; dim_tile < dim_tiles(s); ++dim_tile) {
        auto* page = reinterpret_cast<element*>(open.data() + open_offset(s, h, dim_tile));
        for (std::uint32_t t = 0; t < chunk; ++t) {
          const element* row = x.data() + (std::size_t{done + t} * kv_heads_ + h) * head_dim +
                               std::size_t{dim_tile} * tile.dims;
          for (std::uint32_t i = 0; i < tile.dims; ++i) {
            page[tile.offset(at + t, i)] = row[i];
          }
        }
      }
    }
  }

  // Writes the full open tile. Channels are striped so that the pages of one head in consecutive tiles, those of its
  // dim tiles, and those of neighbouring heads each go round all channels; V starts half a round away from K.
  template <PageStore Store>
  traffic seal(Store& store, stream s, std::uint32_t start_channel, std::vector<page_id>& written) {
    sealed_stream& to = sealed(s);
    const std::uint32_t token_tile = to.tokens / tiles_.of(s).tokens;
    const std::uint32_t half_round = s == stream::v_by_token ? store.channels() / 2 : 0;
    for (std::uint32_t h = 0; h < kv_heads_; ++h) {
      for (std::uint32_t dim_tile = 0; dim_tile < dim_tiles(s); ++dim_tile) {
        const page_id page = store.allocate(start_channel + token_tile + h + dim_tile + half_round);
        if constexpr (Store::holds_data) {
          std::memcpy(store.write(page).data(), to.open.data() + open_offset(s, h, dim_tile),
                      page_bytes_);
        }
        to.table.push_back(page);
        written.push_back(page);
      }
    }
    to.tokens += tiles_.of(s).tokens;
    const auto pages = static_cast<std::uint64_t>(pages_per_tile(s));
    return {.pages_written = pages, .written_bytes = pages * page_bytes_};
  }

  // One token's row of a stream, [head_dim], read element by element: for reclaim only.
  template <PageStore Store>
  void read_row(const Store& store, const layout::head_pages& pages, stream s, std::uint32_t h,
                std::uint32_t token, std::span<element> row) const {
    const layout::tile& tile = tiles_.of(s);
    for (std::uint32_t i = 0; i < row.size(); ++i) {
      const std::uint32_t token_tile = token / tile.tokens;
      const std::uint32_t dim_tile = i / tile.dims;
      const std::byte* page = token < sealed(s).tokens
                                  ? store.view(pages.of(s).page(token_tile, dim_tile)).data()
                                  : sealed(s).open.data() + open_offset(s, h, dim_tile);
      std::memcpy(
          &row[i],
          page + std::size_t{tile.offset(token % tile.tokens, i % tile.dims)} * sizeof(element),
          sizeof(element));
    }
  }

  template <PageStore Store>
  void forget(const Store& store, std::uint32_t new_first) {
    std::array<element, static_cast<std::size_t>(Format::k_dim)> k;
    std::array<element, static_cast<std::size_t>(Format::v_dim)> v;
    const stream k_stream = tiles_.k_by_token.stored() ? stream::k_by_token : stream::k_by_dim;
    for (std::uint32_t h = 0; h < kv_heads_; ++h) {
      const layout::head_pages pages = head(h);
      for (std::uint32_t token = first_; token < new_first; ++token) {
        read_row(store, pages, k_stream, h, token, k);
        read_row(store, pages, stream::v_by_token, h, token, v);
        std::apply([&](auto&... s) { (s.forget(k, v), ...); }, summaries_[h]);
      }
    }
  }

  layout::tiling tiles_;
  std::uint32_t page_bytes_;
  std::uint32_t kv_heads_;
  std::uint32_t first_ = 0;
  std::uint32_t tokens_ = 0;
  std::array<sealed_stream, stream_count> streams_;
  std::vector<SummaryStates> summaries_;  // [kv_heads]
};

}  // namespace instinfer::store
