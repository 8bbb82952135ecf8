#pragma once
// A page store that is in memory or on a real drive, as chosen at run time: one type, so that
// engines are compiled once for both.

#include <variant>

#include "instinfer/drive/drive_files.hpp"
#include "instinfer/store/pages/memory.hpp"

namespace instinfer::llm {

class either_store {
  using either = std::variant<store::memory, store::drive_files>;

  template <class F>
  decltype(auto) on(F&& f) {
    return store_.index() == 0 ? f(*std::get_if<0>(&store_)) : f(*std::get_if<1>(&store_));
  }
  template <class F>
  decltype(auto) on(F&& f) const {
    return store_.index() == 0 ? f(*std::get_if<0>(&store_)) : f(*std::get_if<1>(&store_));
  }

 public:
  static constexpr bool holds_data = true;

  // `folder` on the drive; empty for memory.
  either_store(const std::string& folder, std::uint32_t channels, std::uint64_t pages_per_channel,
               std::uint32_t page_bytes)
      : store_{folder.empty()
                   ? either(std::in_place_index<0>, channels, pages_per_channel, page_bytes)
                   : either(std::in_place_index<1>,
                            store::drive_files::options{.folders = {folder}}, channels,
                            pages_per_channel, page_bytes)} {}

  page_id allocate(std::uint32_t channel) {
    return on([&](auto& s) { return s.allocate(channel); });
  }
  void release(page_id page) noexcept {
    on([&](auto& s) { s.release(page); });
  }
  std::uint64_t free_pages() const {
    return on([](const auto& s) { return s.free_pages(); });
  }
  std::uint64_t capacity_pages() const {
    return on([](const auto& s) { return s.capacity_pages(); });
  }
  std::uint32_t channels() const {
    return on([](const auto& s) { return s.channels(); });
  }
  void begin_writes(std::uint32_t slot) {
    if (auto* drive = std::get_if<1>(&store_)) {
      drive->begin_writes(slot);
    }
  }
  std::span<std::byte> write(page_id page) {
    return on([&](auto& s) { return s.write(page); });
  }
  std::span<const std::byte> view(page_id page) const {
    return on([&](const auto& s) { return s.view(page); });
  }
  // Null in memory, which has nothing to fetch: kernels then view the pages.
  layout::planned_reads* read_ahead(const access_plan& plan,
                                    const layout::read_order& order) const {
    const auto* drive = std::get_if<1>(&store_);
    return drive != nullptr ? drive->read_ahead(plan, order) : nullptr;
  }

 private:
  either store_;
};

}  // namespace instinfer::llm
