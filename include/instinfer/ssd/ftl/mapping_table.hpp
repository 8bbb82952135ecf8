#pragma once
// The mapping table of the FTL (its L2P table): from page numbers to physical pages, and which
// numbers are in use.

#include <cstdint>
#include <utility>
#include <vector>

#include "instinfer/core/page_key.hpp"
#include "instinfer/core/raw_array.hpp"
#include "instinfer/ssd/ftl/block_table.hpp"

namespace instinfer::flash {

// A number belongs to one channel forever (page_id: p is on channel p % channels). 4 B per number;
// memory is touched only for used numbers.
class mapping_table {
 public:
  // Precondition: channels x pages_per_channel < 2^32 - 1.
  mapping_table(std::uint32_t channels, std::uint64_t pages_per_channel)
      : pages_per_channel_{static_cast<std::uint32_t>(pages_per_channel)},
        channels_(channels),
        entries_(pages_per_channel * channels) {}

  std::uint32_t pages_per_channel() const { return pages_per_channel_; }
  std::uint64_t live(std::uint32_t channel) const { return channels_[channel].live; }

  // Precondition: live(channel) < pages_per_channel().
  page_id take(std::uint32_t channel) {
    channel_numbers& c = channels_[channel];
    ++c.live;
    const auto channels = static_cast<std::uint32_t>(channels_.size());
    if (c.recycled == none) {
      return make_page_id(channel, c.fresh++, channels);
    }
    const page_id page = make_page_id(channel, c.recycled, channels);
    c.recycled = entry(page);
    return page;
  }
  void give_back(page_id page) noexcept {
    const auto channels = static_cast<std::uint32_t>(channels_.size());
    channel_numbers& c = channels_[channel_of(page, channels)];
    --c.live;
    entry(page) = std::exchange(c.recycled, slot_of(page, channels));
  }

  // Whether the number was ever taken. Only then does it have an entry: a physical page, or a link
  // in the list of free numbers.
  bool in_use(page_id page) const {
    const auto channels = static_cast<std::uint32_t>(channels_.size());
    return slot_of(page, channels) < channels_[channel_of(page, channels)].fresh;
  }
  physical_page physical(page_id page) const { return physical_page{entry(page)}; }
  void set_physical(page_id page, physical_page at) {
    entry(page) = static_cast<std::uint32_t>(at);
  }

  std::uint64_t bytes() const {
    return std::uint64_t{pages_per_channel_} * channels_.size() * sizeof(std::uint32_t);
  }

 private:
  static constexpr std::uint32_t none = 0xFFFF'FFFFu;
  struct channel_numbers {
    std::uint64_t live = 0;
    std::uint32_t fresh = 0;
    std::uint32_t recycled = none;  // head of the list of returned numbers, linked by entries_
  };

  std::uint32_t& entry(page_id page) const { return entries_[static_cast<std::uint32_t>(page)]; }

  std::uint32_t pages_per_channel_;
  std::vector<channel_numbers> channels_;
  store::raw_array<std::uint32_t> entries_;  // [pages_per_channel, channels]
};

}  // namespace instinfer::flash
