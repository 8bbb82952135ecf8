#pragma once
// The ledger of a drive's free pages, by channel.
// Used as a store it holds no data: for timing a cache that is larger than this machine's memory.

#include <algorithm>
#include <bit>
#include <cassert>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"
#include "instinfer/store/pages/concepts.hpp"

namespace instinfer::store {

// A channel gives its free slots in ascending order, from the one after the last that it gave, and
// begins again at its end. So pages that are written one after the other are neighbours in a used
// drive, too, as far as neighbours are free, and all slots wear alike. The search takes a step for
// each 64 slots.
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
    words_ = (pages_per_channel_ + 63) / 64;
    free_.resize(std::size_t{words_} * channels);
    for (std::uint32_t c = 0; c < channels; ++c) {
      channels_[c].free = pages_per_channel_;
      for (std::uint32_t slot = 0; slot < pages_per_channel_; slot += 64) {
        word(c, slot) = ~std::uint64_t{0} >> (64 - std::min(64u, pages_per_channel_ - slot));
      }
    }
  }

  page_id allocate(std::uint32_t preferred) {
    require<drive_full>(free_pages_ > 0, [&] {
      return "store: the drive is full, all " + std::to_string(capacity_pages()) +
             " pages are taken";
    });
    std::uint32_t at = preferred % channels();
    while (channels_[at].free == 0) {
      at = (at + 1) % channels();
    }
    const std::uint32_t slot = next_free(at);
    channels_[at].next = slot + 1;
    take(at, slot);
    return make_page_id(at, slot, channels());
  }

  // The page must have been allocated, and not released since: checked where assertions are on.
  void release(page_id page) noexcept {
    assert(static_cast<std::uint32_t>(page) < capacity_pages() && taken(page) &&
           "instinfer: a page was released that is not allocated");
    const std::uint32_t at = channel_of(page, channels());
    const std::uint32_t slot = slot_of(page, channels());
    word(at, slot) |= bit(slot);
    ++channels_[at].free;
    ++free_pages_;
  }

  // Slots of a channel that were ever allocated are among the first so many.
  std::uint32_t used_slots(std::uint32_t of) const { return channels_[of].used; }
  bool taken(page_id page) const {
    const std::uint32_t slot = slot_of(page, channels());
    return (word(channel_of(page, channels()), slot) & bit(slot)) == 0;
  }
  // Of a new ledger: allocates the pages for which is_taken(page).
  template <class Taken>
  void restore(Taken&& is_taken) {
    for (std::uint32_t c = 0; c < channels(); ++c) {
      for (std::uint32_t slot = 0; slot < pages_per_channel_; ++slot) {
        if (is_taken(make_page_id(c, slot, channels()))) {
          take(c, slot);
        }
      }
      channels_[c].next = channels_[c].used;
    }
  }

  std::uint64_t free_pages() const { return free_pages_; }
  std::uint64_t capacity_pages() const { return std::uint64_t{pages_per_channel_} * channels(); }
  std::uint32_t channels() const { return static_cast<std::uint32_t>(channels_.size()); }
  std::uint32_t page_bytes() const { return page_bytes_; }

 private:
  struct channel {
    std::uint32_t free = 0;  // slots
    std::uint32_t next = 0;  // the search begins here
    std::uint32_t used = 0;
  };

  static std::uint64_t bit(std::uint32_t slot) { return std::uint64_t{1} << (slot % 64); }
  std::uint64_t& word(std::uint32_t of, std::uint32_t slot) {
    return free_[std::size_t{of} * words_ + slot / 64];
  }
  const std::uint64_t& word(std::uint32_t of, std::uint32_t slot) const {
    return free_[std::size_t{of} * words_ + slot / 64];
  }

  // Of a channel that has one.
  std::uint32_t next_free(std::uint32_t of) const {
    std::uint32_t slot = channels_[of].next < pages_per_channel_ ? channels_[of].next : 0;
    std::uint64_t free = word(of, slot) & (~std::uint64_t{0} << (slot % 64));
    while (free == 0) {
      slot = (slot / 64 + 1) % words_ * 64;
      free = word(of, slot);
    }
    return slot / 64 * 64 + static_cast<std::uint32_t>(std::countr_zero(free));
  }

  void take(std::uint32_t of, std::uint32_t slot) {
    channel& from = channels_[of];
    word(of, slot) &= ~bit(slot);
    from.used = std::max(from.used, slot + 1);
    --from.free;
    --free_pages_;
  }

  std::uint32_t page_bytes_;
  std::uint32_t pages_per_channel_ = 0;
  std::uint32_t words_ = 0;  // of 64 slots, of a channel
  std::vector<channel> channels_;
  std::vector<std::uint64_t> free_;  // [channels, words], a bit for each slot
  std::uint64_t free_pages_ = 0;
};

}  // namespace instinfer::store
