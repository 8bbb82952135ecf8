#pragma once
// Books of the free pages of a drive, channel by channel. As a store of its own it holds no data: for timing a cache
// that is larger than this machine's memory.

#include <cassert>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/store/concepts.hpp"

namespace instinfer::store {

class ledger {
 public:
  static constexpr bool holds_data = false;

  // Throws bad_argument if there is no channel, or the drive has more pages than a page_id can name.
  ledger(std::uint32_t channels, std::uint64_t pages_per_channel, std::uint32_t page_bytes)
      : page_bytes_{page_bytes}, channels_(channels) {
    require(channels > 0,
            [] { return std::string("store: a drive needs at least one channel, got 0"); });
    require(pages_per_channel * channels < static_cast<std::uint32_t>(no_page), [&] {
      return "store: a drive has at most 2^32 - 2 pages, got " + std::to_string(pages_per_channel) +
             " on each of " + std::to_string(channels) + " channels";
    });
    for (channel& c : channels_) {
      c.capacity = static_cast<std::uint32_t>(pages_per_channel);
    }
    free_pages_ = pages_per_channel * channels;
  }

  page_id allocate(std::uint32_t preferred) {
    require<drive_full>(free_pages_ > 0, [&] {
      return "store: the drive is full, all " + std::to_string(capacity_pages()) +
             " pages are taken";
    });
    std::uint32_t at = preferred % channels();
    while (channels_[at].free_pages() == 0) {
      at = (at + 1) % channels();
    }
    --free_pages_;
    return make_page_id(at, channels_[at].take(), channels());
  }

  void release(page_id page) {
    channels_[channel_of(page, channels())].recycled.push_back(slot_of(page, channels()));
    ++free_pages_;
  }

  std::uint64_t free_pages() const { return free_pages_; }
  std::uint64_t capacity_pages() const { return std::uint64_t{channels_[0].capacity} * channels(); }
  std::uint32_t channels() const { return static_cast<std::uint32_t>(channels_.size()); }
  std::uint32_t page_bytes() const { return page_bytes_; }

 private:
  struct channel {
    std::uint32_t capacity = 0;
    std::uint32_t fresh = 0;  // slots from here on were never used: taken first, which spreads wear
    std::vector<std::uint32_t> recycled;  // released slots

    std::uint32_t free_pages() const {
      return capacity - fresh + static_cast<std::uint32_t>(recycled.size());
    }
    std::uint32_t take() {
      if (fresh < capacity) {
        return fresh++;
      }
      assert(!recycled.empty());
      const std::uint32_t slot = recycled.back();
      recycled.pop_back();
      return slot;
    }
  };

  std::uint32_t page_bytes_;
  std::vector<channel> channels_;
  std::uint64_t free_pages_ = 0;
};

}  // namespace instinfer::store
