#pragma once
// A least-recently-used cache of block numbers with a fixed number of slots: the table of
// RetroInfer's wave buffer.
// A slot number says where the copy of a block is; the owner keeps the copies themselves.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "instinfer/core/errors.hpp"

namespace instinfer {

// Block numbers are dense: the table has one entry for each. Copies of a cache are independent.
// Every call takes constant time. Only the constructor, reserve(), and admit() of a block number
// beyond the reserved ones allocate memory.
class block_cache {
 public:
  using block_id = std::uint32_t;
  using slot_id = std::uint32_t;

  struct admission {
    std::optional<slot_id> slot;      // where to copy the block; none if the cache has no slots
    std::optional<block_id> evicted;  // the block whose copy was in this slot
  };

  // Holds at most `slots` copies of the blocks 0 to blocks - 1.
  explicit block_cache(std::uint32_t slots = 0, std::uint32_t blocks = 0)
      : slots_(slots), slot_of_(blocks, none) {
    for (slot_id s = 0; s < slots; ++s) {
      slots_[s].older = s + 1 < slots ? s + 1 : none;
    }
    free_ = slots > 0 ? 0 : none;
  }

  // Takes the memory for blocks 0 to blocks - 1.
  void reserve(std::uint32_t blocks) {
    if (blocks > slot_of_.size()) {
      slot_of_.resize(blocks, none);
    }
  }

  // Returns the slot of a block's copy, which becomes the most recently used; none if there is no
  // copy. Counts a hit or a miss.
  std::optional<slot_id> touch(block_id block) {
    if (!contains(block)) {
      ++misses_;
      return std::nullopt;
    }
    ++hits_;
    const slot_id slot = slot_of_[block];
    unlink(slot);
    link_newest(slot);
    return slot;
  }

  // Gives a block a slot as the most recently used block. Throws bad_argument if the block has one
  // already.
  admission admit(block_id block) {
    require(!contains(block), [&] {
      return "block cache: block " + std::to_string(block) + " is in slot " +
             std::to_string(slot_of_[block]) + "; admit is for blocks that touch missed";
    });
    if (slots_.empty()) {
      return {};
    }
    if (block >= slot_of_.size()) {
      slot_of_.resize(std::size_t{block} + 1, none);
    }
    admission result;
    if (free_ == none) {
      result.evicted = slots_[oldest_].block;
      forget(*result.evicted);
    }
    const slot_id slot = free_;
    free_ = slots_[slot].older;
    slots_[slot].block = block;
    slot_of_[block] = slot;
    link_newest(slot);
    ++used_;
    result.slot = slot;
    return result;
  }

  // Discards the block's copy and frees its slot. Returns whether the block had a copy.
  bool forget(block_id block) {
    if (!contains(block)) {
      return false;
    }
    const slot_id slot = slot_of_[block];
    unlink(slot);
    slots_[slot].older = free_;
    free_ = slot;
    slot_of_[block] = none;
    --used_;
    return true;
  }

  // Block `by` gets the number 0, and so on. Blocks before it are forgotten.
  void move_down(block_id by) {
    for (block_id b = 0; b < by && b < blocks(); ++b) {
      forget(b);
    }
    slot_of_.erase(slot_of_.begin(),
                   slot_of_.begin() + static_cast<std::ptrdiff_t>(std::min(by, blocks())));
    for (block_id b = 0; b < blocks(); ++b) {
      if (slot_of_[b] != none) {
        slots_[slot_of_[b]].block = b;
      }
    }
  }

  bool contains(block_id block) const { return block < slot_of_.size() && slot_of_[block] != none; }

  // Block numbers from here on have no copy.
  std::uint32_t blocks() const { return static_cast<std::uint32_t>(slot_of_.size()); }
  std::uint32_t capacity() const { return static_cast<std::uint32_t>(slots_.size()); }
  std::uint32_t used() const { return used_; }
  std::uint32_t free() const { return capacity() - used_; }
  std::uint64_t hits() const { return hits_; }
  std::uint64_t misses() const { return misses_; }
  double hit_rate() const {  // 0 before the first touch
    const std::uint64_t touches = hits_ + misses_;
    return touches == 0 ? 0.0 : static_cast<double>(hits_) / static_cast<double>(touches);
  }

  // Bytes of the tables, for the footprint in fast memory.
  std::size_t table_bytes() const {
    return slots_.size() * sizeof(slot_links) + slot_of_.size() * sizeof(slot_id);
  }

 private:
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  // A slot is in one of two lists: used slots by recency, or free slots, linked by `older` only.
  struct slot_links {
    block_id block = none;
    slot_id newer = none;
    slot_id older = none;
  };

  void link_newest(slot_id slot) {
    slots_[slot].newer = none;
    slots_[slot].older = newest_;
    (newest_ == none ? oldest_ : slots_[newest_].newer) = slot;
    newest_ = slot;
  }
  void unlink(slot_id slot) {
    const slot_links at = slots_[slot];
    (at.newer == none ? newest_ : slots_[at.newer].older) = at.older;
    (at.older == none ? oldest_ : slots_[at.older].newer) = at.newer;
  }

  std::vector<slot_links> slots_;
  std::vector<slot_id> slot_of_;  // [blocks], none if the cache has no copy
  slot_id newest_ = none;
  slot_id oldest_ = none;
  slot_id free_ = none;
  std::uint32_t used_ = 0;
  std::uint64_t hits_ = 0;
  std::uint64_t misses_ = 0;
};

}  // namespace instinfer
