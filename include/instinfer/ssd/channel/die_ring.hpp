#pragma once
// The dies of a channel that wait for the bus with a command, in round robin.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace instinfer::flash {

// A turn goes to the first waiting die after the one that had the last turn. Dies are numbered
// die * chips + chip, so that turns visit each chip once before they return for the next die of a
// chip. With one die per chip this is round robin over the chips. One bit per die; O(dies / 64) a
// step.
class die_ring {
 public:
  explicit die_ring(std::int32_t dies) : words_((static_cast<std::size_t>(dies) + 63) / 64, 0) {}

  // The next turn starts at the die `first`.
  void clear(std::int32_t first) {
    words_.assign(words_.size(), 0);
    count_ = 0;
    next_ = static_cast<std::size_t>(first);
  }

  // The next turn starts where it would have started.
  void remove_all() {
    words_.assign(words_.size(), 0);
    count_ = 0;
  }

  bool empty() const { return count_ == 0; }

  // Precondition: the die is not in the ring.
  void add(std::int32_t die) {
    const auto bit = static_cast<std::size_t>(die);
    words_[bit / 64] |= std::uint64_t{1} << (bit % 64);
    ++count_;
  }

  // Removes and returns the first waiting die at or after the last one issued + 1, cyclically.
  // Precondition: !empty().
  std::int32_t take() {
    std::size_t word = next_ / 64;
    std::uint64_t bits =
        word < words_.size() ? words_[word] & (~std::uint64_t{0} << (next_ % 64)) : 0;
    while (bits == 0) {
      word = word + 1 < words_.size() ? word + 1 : 0;
      bits = words_[word];
    }
    words_[word] &= ~(bits & (~bits + 1));
    --count_;
    const std::size_t die = word * 64 + static_cast<std::size_t>(std::countr_zero(bits));
    next_ = die + 1;
    return static_cast<std::int32_t>(die);
  }

 private:
  std::vector<std::uint64_t> words_;
  std::size_t next_ = 0;
  std::int32_t count_ = 0;
};

}  // namespace instinfer::flash
