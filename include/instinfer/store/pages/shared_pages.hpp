#pragma once
// A page store whose pages may have several owners: sequences that were forked.

#include <algorithm>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "instinfer/core/scratch.hpp"
#include "instinfer/store/pages/concepts.hpp"

namespace instinfer::store {

// release() frees a page when its last owner lets go. The numbers of owners are the cache's, so
// every store works as it is. Where nothing was shared they take no memory; after that 4 bytes for
// each page number up to the largest one shared.
template <PageStore Store>
class shared_pages : public Store {
 public:
  using Store::Store;
  explicit shared_pages(Store pages) : Store{std::move(pages)} {}

  // Allocates all memory that share() of these pages needs.
  void reserve_owners(std::span<const page_id> pages) {
    for (const page_id page : pages) {
      if (const std::size_t i = index(page); page != no_page && i >= others_.size()) {
        resize_scratch(others_, i + 1);
      }
    }
  }
  // Each of the pages gets one more owner; no_page is left out.
  void share(std::span<const page_id> pages) noexcept {
    for (const page_id page : pages) {
      if (page != no_page) {
        ++others_[index(page)];
      }
    }
  }
  void release(page_id page) noexcept {
    if (owners(page) > 1) {
      --others_[index(page)];
    } else {
      Store::release(page);
    }
  }

  // Of an allocated page.
  std::uint32_t owners(page_id page) const {
    return index(page) < others_.size() ? others_[index(page)] + 1 : 1;
  }
  std::uint64_t owner_bytes() const { return others_.capacity() * sizeof(std::uint32_t); }

 private:
  static std::size_t index(page_id page) { return static_cast<std::uint32_t>(page); }

  std::vector<std::uint32_t> others_;  // owners of a page beside the first
};

}  // namespace instinfer::store
