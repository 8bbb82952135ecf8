#pragma once
// The earliest event among a fixed number of sources: a tournament tree, O(log n) an update.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "instinfer/codec/unit_rules.hpp"

namespace instinfer::flash {

// At one time the source of the lowest number comes first. A template, so that it costs nothing
// where it is only included.
template <class Time = std::int64_t>
class event_queue {
 public:
  static constexpr Time never = std::numeric_limits<Time>::max();

  explicit event_queue(std::size_t parties)
      : leaves_{std::bit_ceil(parties)}, due_(leaves_, never), winner_(leaves_) {
    clear();
  }

  // Nobody is ever due.
  void clear() {
    std::fill(due_.begin(), due_.end(), never);
    for (std::size_t node = leaves_; node-- > 1;) {
      winner_[node] =
          2 * node < leaves_ ? winner_[2 * node] : static_cast<std::uint32_t>(2 * node - leaves_);
    }
  }

  Time due(std::size_t party) const { return due_[party]; }

  void set(std::size_t party, Time at) {
    due_[party] = at;
    for (std::size_t node = (leaves_ + party) / 2; node > 0; node /= 2) {
      const std::uint32_t left = child(2 * node);
      const std::uint32_t right = child(2 * node + 1);
      const std::uint32_t first = due_[right] < due_[left] ? right : left;
      if (first == winner_[node] && first != party) {
        return;  // nothing changes above
      }
      winner_[node] = first;
    }
  }
  void set_no_later(std::size_t party, Time at) {
    if (at < due_[party]) {
      set(party, at);
    }
  }

  std::size_t first() const { return leaves_ == 1 ? 0 : winner_[1]; }

 private:
  std::uint32_t child(std::size_t node) const {
    return node < leaves_ ? winner_[node] : static_cast<std::uint32_t>(node - leaves_);
  }

  std::size_t leaves_;
  std::vector<Time> due_;              // [leaves]
  std::vector<std::uint32_t> winner_;  // [leaves] who is first below an inner node; 1 is the root
};

}  // namespace instinfer::flash
