#pragma once
// The L2P entries of one stream in one layer of one sequence.

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "instinfer/core/page_key.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/store/pages/concepts.hpp"

namespace instinfer::store {

// Entries are numbered [token_tile, pages_per_tile]. Those of reclaimed tiles are freed when they
// are half of the table, so an endless stream takes bounded memory.
class page_table {
 public:
  explicit page_table(std::size_t pages_per_tile) : pages_per_tile_{pages_per_tile} {}

  page_id& operator[](std::size_t entry) { return pages_[entry - gone()]; }
  page_id operator[](std::size_t entry) const { return pages_[entry - gone()]; }

  void reserve(std::uint64_t more) { reserve_scratch(pages_, pages_.size() + more); }
  void add(std::uint64_t more) { pages_.resize(pages_.size() + more, no_page); }

  // From first_tile() on.
  std::span<const page_id> pages() const { return pages_; }
  std::span<page_id> pages() { return pages_; }
  std::uint32_t first_tile() const { return first_tile_; }
  std::uint32_t reclaimed_tiles() const { return reclaimed_tiles_; }

  // An empty table becomes that of a stream whose first `tiles` tiles are reclaimed.
  void begin_at(std::uint32_t tiles) { first_tile_ = reclaimed_tiles_ = tiles; }

  // Tile `tiles` gets the number 0, and so on. All tiles before it must be reclaimed.
  void rebase(std::uint32_t tiles) {
    if (first_tile_ < tiles) {
      free_before(tiles);
    }
    first_tile_ -= tiles;
    reclaimed_tiles_ -= tiles;
  }

  // Releases the pages of the tiles before `tiles`.
  template <PageStore Store>
  void reclaim(Store& store, std::uint32_t tiles) {
    for (std::size_t i = reclaimed_tiles_ * pages_per_tile_; i < tiles * pages_per_tile_; ++i) {
      store.release(std::exchange((*this)[i], no_page));
    }
    reclaimed_tiles_ = std::max(reclaimed_tiles_, tiles);
    if (2 * (reclaimed_tiles_ * pages_per_tile_ - gone()) >= pages_.size()) {
      free_before(reclaimed_tiles_);
    }
  }
  // Releases the pages of the tiles from `tiles` on.
  template <PageStore Store>
  void truncate(Store& store, std::uint32_t tiles) {
    const std::size_t stay = tiles * pages_per_tile_ - gone();
    for (std::size_t i = stay; i < pages_.size(); ++i) {
      store.release(pages_[i]);
    }
    pages_.resize(stay);
  }
  template <PageStore Store>
  void release_all(Store& store) {
    for (const page_id page : pages_) {
      if (page != no_page) {
        store.release(page);
      }
    }
    pages_.clear();
  }

 private:
  void free_before(std::uint32_t tiles) {
    const std::size_t n = tiles * pages_per_tile_ - gone();
    pages_.erase(pages_.begin(), pages_.begin() + static_cast<std::ptrdiff_t>(n));
    first_tile_ = tiles;
  }
  std::size_t gone() const { return first_tile_ * pages_per_tile_; }

  std::size_t pages_per_tile_;
  std::uint32_t first_tile_ = 0;
  std::uint32_t reclaimed_tiles_ = 0;
  std::vector<page_id> pages_;  // [token_tile - first_tile, pages_per_tile]
};

}  // namespace instinfer::store
