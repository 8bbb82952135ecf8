#pragma once
// A page store in host memory: the drive's pages in one array, in the order of their first
// allocation.
// Pages that a head reads in sequence are allocated in sequence, but on changing channels. In the
// order of page numbers they would form short runs that hardware prefetchers lose (fp16 K and V on
// a Zen 4 core: 17 GB/s, against 27 in the order of allocation).

#include <vector>

#include "instinfer/store/pages/ledger.hpp"
#include "instinfer/store/pages/reserved_memory.hpp"

namespace instinfer::store {

class memory {
 public:
  static constexpr bool holds_data = true;

  // Reserves address space for all pages; the system provides memory only for pages that are
  // written. Throws bad_argument as ledger and reserved_memory do.
  memory(std::uint32_t channels, std::uint64_t pages_per_channel, std::uint32_t page_bytes)
      : ledger_{channels, pages_per_channel, page_bytes},
        places_(ledger_.capacity_pages(), nowhere),
        pages_{ledger_.capacity_pages() * page_bytes} {}

  page_id allocate(std::uint32_t preferred) {
    const page_id page = ledger_.allocate(preferred);
    if (std::uint32_t& place = places_[static_cast<std::uint32_t>(page)]; place == nowhere) {
      place = next_place_++;
    }
    return page;
  }
  void release(page_id page) noexcept { ledger_.release(page); }
  std::uint64_t free_pages() const { return ledger_.free_pages(); }
  std::uint64_t capacity_pages() const { return ledger_.capacity_pages(); }
  std::uint32_t channels() const { return ledger_.channels(); }

  std::span<std::byte> write(page_id page) { return {at(page), ledger_.page_bytes()}; }
  std::span<const std::byte> view(page_id page) const { return {at(page), ledger_.page_bytes()}; }

 private:
  static constexpr std::uint32_t nowhere = 0xFFFF'FFFFu;

  std::byte* at(page_id page) const {
    return pages_.data() +
           std::size_t{places_[static_cast<std::uint32_t>(page)]} * ledger_.page_bytes();
  }

  ledger ledger_;
  std::vector<std::uint32_t> places_;  // [pages], index in the array; kept when a page is released
  std::uint32_t next_place_ = 0;
  reserved_memory pages_;
};

}  // namespace instinfer::store
