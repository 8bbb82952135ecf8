#pragma once
// A page store that is in memory or on a real drive, as is decided at run time: engines over it are
// compiled once.

#include <cstdint>
#include <span>
#include <utility>
#include <variant>

#include "instinfer/drive.hpp"
#include "instinfer/store/pages/memory.hpp"

namespace instinfer::examples {

class memory_or_drive {
  template <class Self, class F>
  static auto with(Self& self, F&& f) {
    if (auto* pages = std::get_if<store::memory>(&self.pages_)) {
      return f(*pages);
    }
    return f(*std::get_if<store::drive_files>(&self.pages_));
  }

 public:
  static constexpr bool holds_data = true;

  memory_or_drive(std::uint32_t channels, std::uint64_t pages_per_channel, std::uint32_t page_bytes)
      : pages_{std::in_place_type<store::memory>, channels, pages_per_channel, page_bytes} {}
  explicit memory_or_drive(store::drive_files pages) : pages_{std::move(pages)} {}

  page_id allocate(std::uint32_t preferred) {
    return with(*this, [&](auto& pages) { return pages.allocate(preferred); });
  }
  void release(page_id page) noexcept {
    with(*this, [&](auto& pages) { pages.release(page); });
  }
  std::uint64_t free_pages() const {
    return with(*this, [](const auto& pages) { return pages.free_pages(); });
  }
  std::uint64_t capacity_pages() const {
    return with(*this, [](const auto& pages) { return pages.capacity_pages(); });
  }
  std::uint32_t channels() const {
    return with(*this, [](const auto& pages) { return pages.channels(); });
  }

  void begin_writes(std::uint32_t slot) {
    if (auto* files = std::get_if<store::drive_files>(&pages_)) {
      files->begin_writes(slot);
    }
  }
  std::span<std::byte> write(page_id page) {
    return with(*this, [&](auto& pages) { return pages.write(page); });
  }
  std::span<const std::byte> view(page_id page) const {
    return with(*this, [&](const auto& pages) { return pages.view(page); });
  }
  // Nothing is fetched from memory.
  layout::planned_reads* read_ahead(const access_plan& plan,
                                    const layout::read_order& order) const {
    const auto* files = std::get_if<store::drive_files>(&pages_);
    return files != nullptr ? files->read_ahead(plan, order) : nullptr;
  }

  // Null in memory.
  const store::drive_files* files() const { return std::get_if<store::drive_files>(&pages_); }

 private:
  std::variant<store::memory, store::drive_files> pages_;
};

}  // namespace instinfer::examples
