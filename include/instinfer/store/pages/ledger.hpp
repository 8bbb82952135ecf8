#pragma once
// The ledger of a drive's free pages, by channel.
// Used as a store it holds no data: for timing a cache that is larger than this machine's memory.

#include <algorithm>
#include <cassert>
#include <string>
#include <utility>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/core/raw_array.hpp"
#include "instinfer/store/pages/concepts.hpp"

namespace instinfer::store {

class ledger {
 public:
  static constexpr bool holds_data = false;

  // Throws bad_argument if there is no channel, or if the drive has more pages than page_id can
  // number.
  ledger(std::uint32_t channels, std::uint64_t pages_per_channel, std::uint32_t page_bytes)
      : page_bytes_{page_bytes}, channels_(channels) {
    require(channels > 0,
            [] { return std::string("store: a drive needs at least one channel, got 0"); });
    require(pages_per_channel < static_cast<std::uint32_t>(no_page) / channels, [&] {
      return "store: a drive has at most 2^32 - 2 pages, got " + std::to_string(pages_per_channel) +
             " on each of " + std::to_string(channels) + " channels";
    });
    pages_per_channel_ = static_cast<std::uint32_t>(pages_per_channel);
    free_pages_ = pages_per_channel * channels;
    next_recycled_ = raw_array<std::uint32_t>(free_pages_);
    taken_.resize(free_pages_);
  }

  page_id allocate(std::uint32_t preferred) {
    require<drive_full>(free_pages_ > 0, [&] {
      return "store: the drive is full, all " + std::to_string(capacity_pages()) +
             " pages are taken";
    });
    std::uint32_t at = preferred % channels();
    while (channels_[at].fresh == pages_per_channel_ && channels_[at].recycled == none) {
      at = (at + 1) % channels();
    }
    --free_pages_;
    const page_id page = take(at);
    taken_[static_cast<std::uint32_t>(page)] = true;
    return page;
  }

  // The page must have been allocated, and not released since: checked where assertions are on.
  void release(page_id page) noexcept {
    assert(static_cast<std::uint32_t>(page) < taken_.size() &&
           taken_[static_cast<std::uint32_t>(page)] &&
           "instinfer: a page was released that is not allocated");
    taken_[static_cast<std::uint32_t>(page)] = false;
    channel& to = channels_[channel_of(page, channels())];
    next_recycled_[static_cast<std::uint32_t>(page)] =
        std::exchange(to.recycled, slot_of(page, channels()));
    ++free_pages_;
  }

  // Slots of a channel that were ever allocated are the first so many.
  std::uint32_t used_slots(std::uint32_t of) const { return channels_[of].fresh; }
  bool taken(page_id page) const { return taken_[static_cast<std::uint32_t>(page)]; }
  // Of a new ledger: allocates the pages for which is_taken(page).
  template <class Taken>
  void restore(Taken&& is_taken) {
    for (std::uint32_t c = 0; c < channels(); ++c) {
      channel& of = channels_[c];
      for (std::uint32_t slot = pages_per_channel_; slot-- > 0;) {
        const page_id page = make_page_id(c, slot, channels());
        if (is_taken(page)) {
          of.fresh = std::max(of.fresh, slot + 1);
          taken_[static_cast<std::uint32_t>(page)] = true;
          --free_pages_;
        } else if (of.fresh > 0) {
          next_recycled_[static_cast<std::uint32_t>(page)] = std::exchange(of.recycled, slot);
        }
      }
    }
  }

  std::uint64_t free_pages() const { return free_pages_; }
  std::uint64_t capacity_pages() const { return std::uint64_t{pages_per_channel_} * channels(); }
  std::uint32_t channels() const { return static_cast<std::uint32_t>(channels_.size()); }
  std::uint32_t page_bytes() const { return page_bytes_; }

 private:
  page_id take(std::uint32_t channel_number) {
    channel& from = channels_[channel_number];
    if (from.fresh < pages_per_channel_) {
      return make_page_id(channel_number, from.fresh++, channels());
    }
    const page_id page = make_page_id(channel_number, from.recycled, channels());
    from.recycled = next_recycled_[static_cast<std::uint32_t>(page)];
    return page;
  }

  static constexpr std::uint32_t none = 0xFFFF'FFFFu;
  struct channel {
    // first never used slot; unused slots are taken first, which spreads wear
    std::uint32_t fresh = 0;
    std::uint32_t recycled = none;  // head of the list of released slots, linked by next_recycled_
  };

  std::uint32_t page_bytes_;
  std::uint32_t pages_per_channel_ = 0;
  std::vector<channel> channels_;
  raw_array<std::uint32_t> next_recycled_;  // [pages], touched only for released pages
  std::uint64_t free_pages_ = 0;
  std::vector<bool> taken_;  // [pages]
};

}  // namespace instinfer::store
