#pragma once
// Where the pages of a GPU engine live: page stores (store/pages/concepts.hpp) whose pages a kernel
// can reach.
//
//   device_pages   in GPU memory; the GPU is the drive (in_storage)
//   pinned_pages   in pinned host memory; kernels read it over the link (gpu_direct, peer_to_peer)
//   staged_pages   in pinned host memory; each attend gathers the planned pages in a bounce buffer
//                  and copies it to the GPU (host_bounce)

#include <cstring>
#include <span>
#include <vector>

#include "instinfer/cuda/launch/device.cuh"
#include "instinfer/store/pages/ledger.hpp"
#include "instinfer/transfer/gpu_direct.hpp"
#include "instinfer/transfer/host_bounce.hpp"
#include "instinfer/transfer/in_storage.hpp"

namespace instinfer::cuda {

// What the homes share: a ledger of pages, and a pool of capacity + open pages in memory of one
// kind. The pages behind the capacity hold the open tiles of the attend that runs.
template <memory_kind Kind>
class page_pool {
 public:
  static constexpr bool holds_data = true;

  page_pool(std::uint32_t channels, std::uint64_t pages_per_channel, std::uint32_t page_bytes)
      : ledger_{channels, pages_per_channel, page_bytes} {}

  // Allocates the pool. Call it before the first page is allocated. Throws device_error where there
  // is not enough memory.
  void place(std::uint32_t open_pages) {
    pool_ = array<std::byte, Kind>((ledger_.capacity_pages() + open_pages) * ledger_.page_bytes());
  }

  page_id allocate(std::uint32_t preferred) { return ledger_.allocate(preferred); }
  void release(page_id page) noexcept { ledger_.release(page); }
  std::uint64_t free_pages() const { return ledger_.free_pages(); }
  std::uint64_t capacity_pages() const { return ledger_.capacity_pages(); }
  std::uint32_t channels() const { return ledger_.channels(); }
  std::uint32_t page_bytes() const { return ledger_.page_bytes(); }

  std::byte* at(std::uint64_t page) const { return pool_.data() + page * ledger_.page_bytes(); }

 private:
  store::ledger ledger_;
  array<std::byte, Kind> pool_;
};

class pinned_pages : public page_pool<memory_kind::pinned> {
 public:
  static constexpr bool gathers = false;
  using page_pool::page_pool;

  std::span<std::byte> write(page_id page) {
    return {at(static_cast<std::uint32_t>(page)), page_bytes()};
  }
  std::span<const std::byte> view(page_id page) const {
    return {at(static_cast<std::uint32_t>(page)), page_bytes()};
  }
  void prepare_writes(std::uint64_t /*pages*/) {}
  void finish_writes() {}
};

// The same memory as pinned_pages. Each attend copies the planned pages to the GPU.
class staged_pages : public pinned_pages {
 public:
  static constexpr bool gathers = true;
  using pinned_pages::pinned_pages;
};

class device_pages : public page_pool<memory_kind::device> {
 public:
  static constexpr bool gathers = false;
  using page_pool::page_pool;

  // Makes room for the pages of one append in pinned memory, from which finish_writes copies them.
  void prepare_writes(std::uint64_t pages) {
    waiting_.clear();
    waiting_.reserve(pages);
    staging_.grow(pages * page_bytes());
  }
  std::span<std::byte> write(page_id page) {
    waiting_.push_back(page);
    for (cached& c : views_) {
      c.page = c.page == page ? no_page : c.page;
    }
    return {staging_.data() + (waiting_.size() - 1) * page_bytes(), page_bytes()};
  }
  // Copies the written pages to the device, neighbouring pages at once.
  void finish_writes() {
    for (std::size_t i = 0, n = 1; i < waiting_.size(); i += n, n = 1) {
      const auto first = static_cast<std::uint32_t>(waiting_[i]);
      while (i + n < waiting_.size() && static_cast<std::uint32_t>(waiting_[i + n]) == first + n) {
        ++n;
      }
      check(cudaMemcpy(at(first), staging_.data() + i * page_bytes(), n * page_bytes(),
                       cudaMemcpyHostToDevice),
            "cudaMemcpy of pages");
    }
    waiting_.clear();
  }
  // A copy of a page in host memory; only reclaim asks for it. Up to 256 copies are kept, one for
  // each page number modulo 256.
  std::span<const std::byte> view(page_id page) const {
    views_.resize(256);
    cached& c = views_[static_cast<std::uint32_t>(page) % views_.size()];
    if (c.page != page) {
      c.bytes.resize(page_bytes());
      check(cudaMemcpy(c.bytes.data(), at(static_cast<std::uint32_t>(page)), page_bytes(),
                       cudaMemcpyDeviceToHost),
            "cudaMemcpy of a page");
      c.page = page;
    }
    return c.bytes;
  }

 private:
  struct cached {
    page_id page = no_page;
    std::vector<std::byte> bytes;
  };
  std::vector<page_id> waiting_;  // since prepare_writes
  array<std::byte, memory_kind::pinned> staging_;
  mutable std::vector<cached> views_;
};

// The home that stands for a transfer policy. For a policy of your own, name a home as the engine's
// third template argument.
template <class Transfer>
struct home_of;
template <>
struct home_of<transfer::in_storage> {
  using type = device_pages;
};
template <>
struct home_of<transfer::gpu_direct> {
  using type = pinned_pages;
};
template <>
struct home_of<transfer::peer_to_peer> {
  using type = pinned_pages;
};
template <>
struct home_of<transfer::host_bounce> {
  using type = staged_pages;
};

}  // namespace instinfer::cuda
