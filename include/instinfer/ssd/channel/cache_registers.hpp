#pragma once
// The two page registers of a die that reads with its cache register: its next array read runs while
// earlier data goes out.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "instinfer/ssd/channel/flight_queue.hpp"

namespace instinfer::flash {

// Each plane has an array register, which the array fills, and a cache register, which the bus
// empties (ONFI: READ CACHE RANDOM). The rules, for the pages of one command on all its planes:
// - The array register is filled when the array time is over. The pages move to the cache register
//   as soon as it is empty, in timing::cache_move_ps; then their data waits for the bus.
// - The die takes its next read command, with the cycles of a plain read, once the pages have moved:
//   so at most one command is in the cache register and one in the array or its register.
// - The cache register is empty again at the end of the command's last data-out.
// A real part starts the move with the next command; ours starts it by itself, so that the
// arbitration alone decides whether data or the next command goes first.
class cache_registers {
 public:
  explicit cache_registers(std::int32_t dies) : dies_(static_cast<std::size_t>(dies)) {}

  void clear() { std::ranges::fill(dies_, registers{}); }

  // A command whose array time ends at f.ready. Returns whether the cache register will be free then;
  // f.ready is then the end of the move. Otherwise the command stays behind.
  bool enter(flight& f, std::int64_t move_ticks) {
    registers& die = dies_[static_cast<std::size_t>(f.die)];
    if (die.cache_used) {
      die.behind = f;
      die.array_used = true;
      return false;
    }
    die.cache_used = true;
    f.ready += move_ticks;
    return true;
  }

  // The command in f's cache register has left at `now`. Returns whether one was behind it: `f` is
  // then that one, ready at the end of its move.
  bool leave(flight& f, std::int64_t now, std::int64_t move_ticks) {
    registers& die = dies_[static_cast<std::size_t>(f.die)];
    die.cache_used = die.array_used;
    if (!die.array_used) {
      return false;
    }
    die.array_used = false;
    f = die.behind;
    f.ready = std::max(f.ready, now) + move_ticks;
    return true;
  }

 private:
  struct registers {
    bool cache_used = false;
    bool array_used = false;
    flight behind;
  };
  std::vector<registers> dies_;
};

}  // namespace instinfer::flash
