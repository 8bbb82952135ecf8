#pragma once
// One drive under several caches: they share its free pages and its group buffer.

#include <cstdint>
#include <utility>

#include "instinfer/store/pages/concepts.hpp"
#include "instinfer/store/pages/group_buffer.hpp"

namespace instinfer::store {

// The drive. It must outlive the caches on it, and must not move.
template <PageStore Store>
struct shared_drive {
  shared_drive(Store given, std::uint64_t buffer_bytes)
      : pages{std::move(given)}, buffer{buffer_bytes} {}
  shared_drive(const shared_drive&) = delete;
  shared_drive& operator=(const shared_drive&) = delete;

  Store pages;
  group_buffer buffer;
};

// A cache's view of the drive: a page store without pages of its own. To a store that is told whose
// pages it writes, the sequences in one slot of all caches are one.
template <PageStore Store>
class drive_share {
 public:
  static constexpr bool holds_data = Store::holds_data;

  explicit drive_share(shared_drive<Store>& drive) : drive_{&drive} {}

  page_id allocate(std::uint32_t channel) { return pages().allocate(channel); }
  void release(page_id page) noexcept { pages().release(page); }
  std::uint64_t free_pages() const { return pages().free_pages(); }
  std::uint64_t capacity_pages() const { return pages().capacity_pages(); }
  std::uint32_t channels() const { return pages().channels(); }
  group_buffer& buffer() { return drive_->buffer; }

  std::span<std::byte> write(page_id page)
    requires holds_data
  {
    return pages().write(page);
  }
  std::span<const std::byte> view(page_id page) const
    requires holds_data
  {
    return std::as_const(drive_->pages).view(page);
  }

  auto read_ahead(const auto& plan, const auto& order) const
    requires requires(const Store& s) { s.read_ahead(plan, order); }
  {
    return pages().read_ahead(plan, order);
  }

  // What a drive that lasts has in addition: the pages of the last commit.
  bool holds(page_id page) const
    requires requires(const Store& s) { s.holds(page); }
  {
    return pages().holds(page);
  }
  // What a store over an FTL has in addition (flash/locating_store.hpp).
  void begin_writes(std::uint32_t slot)
    requires requires(Store& s) { s.begin_writes(slot); }
  {
    pages().begin_writes(slot);
  }
  auto locate(page_id page) const
    requires requires(const Store& s) { s.locate(page); }
  {
    return pages().locate(page);
  }
  const auto& shape() const
    requires requires(const Store& s) { s.shape(); }
  {
    return pages().shape();
  }
  auto& translation()
    requires requires(Store& s) { s.translation(); }
  {
    return pages().translation();
  }

 private:
  Store& pages() const { return drive_->pages; }

  shared_drive<Store>* drive_;
};

}  // namespace instinfer::store
