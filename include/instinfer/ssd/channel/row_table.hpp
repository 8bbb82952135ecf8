#pragma once
// Numbers the rows of a batch or stream in the order in which pages of them come: a hash table.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace instinfer::flash {

// Open addressing, at most half full.
class row_table {
 public:
  static constexpr std::int32_t nothing = -1;

  // Makes room for `rows` rows. Keeps its memory.
  void begin(std::size_t rows) {
    const std::size_t slots = std::bit_ceil(std::max<std::size_t>(2 * rows, 2));
    slots_.assign(slots, nothing);
    shift_ = 64 - std::countr_zero(slots);
    rows_.clear();
    rows_.reserve(rows);
  }

  // Number of the row with this key. If it is new, this is the number of rows before the call.
  std::size_t find(std::uint64_t key) {
    // 2^64 / phi: multiplicative hashing
    constexpr std::uint64_t golden_ratio = 0x9E37'79B9'7F4A'7C15u;
    std::size_t slot = (key * golden_ratio) >> shift_;
    while (slots_[slot] != nothing) {
      const auto row = static_cast<std::size_t>(slots_[slot]);
      if (rows_[row].key == key) {
        return row;
      }
      slot = slot + 1 < slots_.size() ? slot + 1 : 0;
    }
    slots_[slot] = static_cast<std::int32_t>(rows_.size());
    rows_.push_back({.key = key, .first = nothing});
    return rows_.size() - 1;
  }
  std::size_t size() const { return rows_.size(); }

  // The oldest command of a row that may still wait, or `nothing`.
  std::int32_t& first_command(std::size_t row) { return rows_[row].first; }

 private:
  struct row_record {
    std::uint64_t key;
    std::int32_t first;
  };
  std::vector<std::int32_t> slots_;  // number of a row, or `nothing`
  int shift_ = 63;
  std::vector<row_record> rows_;
};

}  // namespace instinfer::flash
