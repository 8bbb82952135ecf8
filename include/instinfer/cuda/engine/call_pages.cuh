#pragma once
// The pages of one attend as kernels see them: a table of each stream on the device, and copies of
// pages that kernels cannot reach.

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/cuda/engine/page_homes.cuh"
#include "instinfer/cuda/kernels/paged_stream.hpp"
#include "instinfer/cuda/launch/sparse_arguments.hpp"
#include "instinfer/layout/copy_tile.hpp"
#include "instinfer/layout/head_pages.hpp"

namespace instinfer::cuda {

// Where kernels can reach the pages (device_pages, pinned_pages), the table is the cache's own L2P
// table. Only the open tiles are copied; they go behind the pool's capacity. Where kernels cannot
// reach them (staged_pages), gather() copies each planned page once, through a pinned buffer, and
// the table says where the copy lies. Entries that no plan named stay no_page.
template <class Home>
class call_pages {
 public:
  // How many pages behind the capacity the open tiles of one sequence and layer take.
  template <class Format>
  static std::uint32_t open_pages(const layout::tiling& tiles, std::uint32_t kv_heads) {
    std::uint32_t pages = 0;
    for (int s = 0; s < stream_count; ++s) {
      const layout::tile& tile = tiles.of(static_cast<stream>(s));
      pages += tile.stored() ? kv_heads * (Format::k_dim / tile.dims) : 0;
    }
    return pages;
  }

  // head: KV head 0 of the sequence's layer; its tables hold all heads' entries.
  void begin(const Home& home, const layout::head_pages& head, cudaStream_t stream) {
    home_ = &home;
    head_ = head;
    stream_ = stream;
    gathered_ = 0;
    std::uint64_t open_at = home.capacity_pages();
    for (int i = 0; i < stream_count; ++i) {
      const auto s = static_cast<instinfer::stream>(i);
      const layout::tile& tile = head.tiles.of(s);
      if (!tile.stored()) {
        continue;
      }
      const layout::stream_pages& from = head.of(s);
      table& to = tables_[static_cast<std::size_t>(i)];
      const std::uint32_t row = from.kv_heads * from.dim_tiles;  // entries of a token tile
      to.tiles = head.tokens / tile.tokens + 1;
      to.entries.assign(std::size_t{to.tiles} * row, static_cast<std::uint32_t>(no_page));
      if constexpr (!Home::gathers) {
        auto entry = to.entries.begin() + static_cast<std::ptrdiff_t>(from.first_tile) * row;
        entry = std::ranges::transform(from.table, entry, [](page_id page) {
                  return static_cast<std::uint32_t>(page);
                }).out;
        if (from.sealed_tokens < head.tokens) {
          std::iota(entry, entry + row, static_cast<std::uint32_t>(open_at));
          // From pageable memory: the call returns when it has taken the bytes.
          whole_.resize(std::size_t{row} * head.page_bytes);
          for (std::uint32_t page = 0; page < row; ++page) {
            write_open(s, page, whole_.data() + std::size_t{page} * head.page_bytes);
          }
          check(cudaMemcpyAsync(home.at(open_at), whole_.data(), whole_.size(), cudaMemcpyDefault,
                                stream),
                "cudaMemcpyAsync of open pages");
        }
        open_at += row;
        upload(to);
      }
    }
  }

  // Gathers the pages of a plan for one KV head; for homes that gather. Nothing lands on the device
  // before flush().
  void gather(const access_plan& plan, std::uint32_t kv_head) {
    for (const page_read& read : plan.reads()) {
      const layout::stream_pages& from = head_.of(read.kind);
      table& to = tables_[static_cast<std::size_t>(read.kind)];
      std::uint32_t& entry =
          to.entries[(std::size_t{read.token_tile} * from.kv_heads + kv_head) * from.dim_tiles +
                     read.dim_tile];
      if (entry != static_cast<std::uint32_t>(no_page)) {
        continue;  // an earlier plan of this attend brought it
      }
      entry = gathered_ + static_cast<std::uint32_t>(pending_.size());
      pending_.push_back({read.kind, kv_head * from.dim_tiles + read.dim_tile,
                          read.buffered ? nullptr : home_->view(read.page).data()});
    }
  }

  // Copies all pages gathered since the last flush at once, and the tables. The bounce buffer may
  // be used again only when the copy is done, hence the synchronisation.
  void flush() {
    const std::size_t bytes = pending_.size() * head_.page_bytes;
    bounce_.grow(bytes);
    for (std::size_t i = 0; i < pending_.size(); ++i) {
      std::byte* to = bounce_.data() + i * head_.page_bytes;
      if (pending_[i].sealed != nullptr) {
        std::memcpy(to, pending_[i].sealed, head_.page_bytes);
      } else {
        write_open(pending_[i].kind, pending_[i].page, to);
      }
    }
    const std::size_t before = std::size_t{gathered_} * head_.page_bytes;
    if (before + bytes > staged_.size() || staged_.size() == 0) {
      array<std::byte> larger((before + bytes) * 3 / 2 + head_.page_bytes);
      check(
          cudaMemcpyAsync(larger.data(), staged_.data(), before, cudaMemcpyDeviceToDevice, stream_),
          "cudaMemcpyAsync of staged pages");
      check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
      staged_ = std::move(larger);
    }
    check(cudaMemcpyAsync(staged_.data() + before, bounce_.data(), bytes, cudaMemcpyHostToDevice,
                          stream_),
          "cudaMemcpyAsync of gathered pages");
    gathered_ += static_cast<std::uint32_t>(pending_.size());
    pending_.clear();
    for (table& t : tables_) {
      if (!t.entries.empty()) {
        upload(t);
      }
    }
    check(cudaStreamSynchronize(stream_), "cudaStreamSynchronize");
  }

  // Rows of a token-indexed stream for the attention kernel.
  template <class E>
  paged_stream<E> rows(instinfer::stream s, std::uint32_t dim) const {
    const table& t = tables_[static_cast<std::size_t>(s)];
    return flash_pages(reinterpret_cast<const E*>(pool()), page_count(),
                       head_.page_bytes / (dim * static_cast<std::uint32_t>(sizeof(E))),
                       head_.tiles.of(s).tokens, head_.of(s).kv_heads, t.device.data(), t.tiles);
  }

  // Tiles of a stream of K for the scoring kernel.
  template <class E>
  tiled_stream<E> tiles(instinfer::stream s) const {
    const table& t = tables_[static_cast<std::size_t>(s)];
    const layout::tile& tile = head_.tiles.of(s);
    return {.pages = reinterpret_cast<const E*>(pool()),
            .page_elements = head_.page_bytes / static_cast<std::uint32_t>(sizeof(E)),
            .page_count = page_count(),
            .tile_tokens = divisor(tile.tokens),
            .tile_dims = divisor(tile.dims),
            .token_stride = tile.token_stride,
            .dim_stride = tile.dim_stride,
            .dim_tiles = head_.of(s).dim_tiles,
            .table = t.device.data(),
            .table_tiles = t.tiles,
            .table_tile_stride = head_.of(s).kv_heads * head_.of(s).dim_tiles};
  }

 private:
  struct table {
    std::vector<std::uint32_t> entries;  // [token_tile, kv_heads, dim_tiles]
    array<std::uint32_t> device;
    std::uint32_t tiles = 0;
  };

  // A page to gather. Open pages are numbered [kv_heads, dim_tiles].
  struct wanted_page {
    instinfer::stream kind;
    std::uint32_t page;
    const std::byte* sealed;  // null: an open page
  };

  // Writes an open page as the sealed page that it becomes. head_ is KV head 0: the open pages of
  // the others follow.
  void write_open(instinfer::stream s, std::uint32_t page, std::byte* to) const {
    const layout::stream_pages& from = head_.of(s);
    const layout::tile& whole = head_.tiles.of(s);
    // Elements of 16 bits: copies need no more of their type.
    layout::copy_tile(
        reinterpret_cast<const std::uint16_t*>(from.open + std::size_t{page} * from.open_bytes),
        from.open_tile, reinterpret_cast<std::uint16_t*>(to), whole, head_.tokens % whole.tokens);
  }

  void upload(table& t) {
    t.device.grow(t.entries.size());
    check(
        cudaMemcpyAsync(t.device.data(), t.entries.data(), t.entries.size() * sizeof(std::uint32_t),
                        cudaMemcpyHostToDevice, stream_),
        "cudaMemcpyAsync of a page table");
  }
  const std::byte* pool() const {
    if constexpr (Home::gathers) {
      return staged_.data();
    } else {
      return home_->at(0);
    }
  }
  std::uint32_t page_count() const {
    if constexpr (Home::gathers) {
      return std::max(gathered_, 1u);  // there is room for one even if no plan named any
    } else {
      std::uint32_t open = 0;
      for (const table& t : tables_) {
        open += t.tiles == 0 ? 0 : static_cast<std::uint32_t>(t.entries.size() / t.tiles);
      }
      return static_cast<std::uint32_t>(home_->capacity_pages()) + open;
    }
  }

  const Home* home_ = nullptr;
  layout::head_pages head_;
  cudaStream_t stream_ = nullptr;
  std::array<table, stream_count> tables_;
  std::vector<wanted_page> pending_;
  std::vector<std::byte> whole_;  // open pages of a stream with the layout of sealed ones
  array<std::byte, memory_kind::pinned> bounce_;
  array<std::byte> staged_;
  std::uint32_t gathered_ = 0;
};

}  // namespace instinfer::cuda
