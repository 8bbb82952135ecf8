#pragma once
// The contract of a page store: where sealed pages are kept.
// A store is finite. A page is written once and read many times.
//
//   memory             pages in host memory
//   ledger             page counts only: for timing caches larger than memory
//   drive_files        pages in files on a real drive (drive/drive_files.hpp)
//   flash::ftl_store   pages on the FTL of a modelled drive, with blocks, wear and failures; counts
//                      only, unless it is given page contents (flash/ftl_store.hpp)
//   drive_share       the pages of a drive that several caches share (store/pages/shared_drive.hpp)

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include "instinfer/core/page_key.hpp"

namespace instinfer::store {

// A cache constructs it with (channels, pages_per_channel, page_bytes), or is given one.
// allocate(channel) takes a free page: on that channel, or on the next one that has a free page. It
// throws drive_full, and nothing else. release(page) frees a page.
// A store with holds_data has two more members: write(page), once after allocate, and view(page),
// after write. Both return [page_bytes], valid until release; in a store that moves pages or
// sends them to a drive, until the next allocate.
//
// A store may have begin_writes(slot): before the pages of an append, it announces the sequence
// that they belong to. It may throw; nothing is written then.
//
// A store that has to fetch pages has read_ahead(plan, order), which returns the planned_reads of
// an operation (layout/page_reader.hpp). Its view is valid until the thread's eighth view after it.
// A store over such a store must pass read_ahead on.
template <class S>
concept PageStore = requires(S& s, const S& c, std::uint32_t channel, page_id page) {
  { S::holds_data } -> std::convertible_to<bool>;
  { s.allocate(channel) } -> std::same_as<page_id>;
  { s.release(page) } noexcept;
  { c.free_pages() } -> std::convertible_to<std::uint64_t>;
  { c.capacity_pages() } -> std::convertible_to<std::uint64_t>;
  { c.channels() } -> std::convertible_to<std::uint32_t>;
  requires !S::holds_data || requires {
    { s.write(page) } -> std::same_as<std::span<std::byte>>;
    { c.view(page) } -> std::same_as<std::span<const std::byte>>;
  };
};

}  // namespace instinfer::store
