#pragma once
// A page store in host memory: the drive's pages as one array, filled as pages are allocated.

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "instinfer/store/ledger.hpp"

namespace instinfer::store {

class memory {
 public:
  static constexpr bool holds_data = true;

  // Reserves address space for all pages; the system backs it with memory only where pages are written. Asks Linux for
  // huge pages: random reads of 4 KiB pages are bound by address translation otherwise (measured on a virtual machine:
  // streaming reads 16 GB/s with them, 10 without). Throws bad_argument as ledger does, and std::bad_alloc.
  memory(std::uint32_t channels, std::uint64_t pages_per_channel, std::uint32_t page_bytes)
      : books_{channels, pages_per_channel, page_bytes},
        pages_{books_.capacity_pages() * page_bytes} {
#if defined(__linux__)
    (void)::madvise(pages_.data(), books_.capacity_pages() * page_bytes,
                    MADV_HUGEPAGE);  // a wish: failure changes nothing
#endif
  }

  page_id allocate(std::uint32_t preferred) { return books_.allocate(preferred); }
  void release(page_id page) noexcept { books_.release(page); }
  std::uint64_t free_pages() const { return books_.free_pages(); }
  std::uint64_t capacity_pages() const { return books_.capacity_pages(); }
  std::uint32_t channels() const { return books_.channels(); }

  std::span<std::byte> write(page_id page) { return {at(page), books_.page_bytes()}; }
  std::span<const std::byte> view(page_id page) const { return {at(page), books_.page_bytes()}; }

 private:
  static constexpr std::size_t huge_page_bytes = std::size_t{2} << 20;

  // Slot-major: the pages of a head that are strided over channels lie next to each other in memory.
  std::byte* at(page_id page) const {
    return pages_.data() + std::size_t{static_cast<std::uint32_t>(page)} * books_.page_bytes();
  }

  ledger books_;
  raw_array<std::byte, huge_page_bytes> pages_;
};

}  // namespace instinfer::store
