#pragma once
// The two page registers of a die with cache read: its next array read runs while earlier data goes
// out.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "instinfer/ssd/channel/flight_queue.hpp"

namespace instinfer::flash {

// Each plane has an array register, which the array fills, and a cache register, which the bus
// empties (ONFI: READ CACHE RANDOM). The rules, for the pages of one command on all its planes:
// - The array register is full at the end of the array time. The pages move to the cache register
//   as soon as it is empty, in timing::cache_move_ps. Then their data waits for the bus.
// - The die takes its next read command, with the cycles of a plain read, when the pages have
//   moved. So at most one command is in the cache register and one in the array or its register.
// - The cache register is empty again at the end of the last data-out of the command.
// A real part starts the move with the next command. Here the move starts by itself, so that the
// arbitration alone decides whether data or the next command goes first.
class cache_registers {
 public:
  explicit cache_registers(std::int32_t dies) : dies_(static_cast<std::size_t>(dies)) {}

  void clear() { std::fill(dies_.begin(), dies_.end(), registers{}); }

  // The array time of a command ends at f.ready. If the cache register will be free for it, returns
  // the command with the end of its move as its ready time. Otherwise the command stays behind.
  std::optional<flight> enter(const flight& f, std::int64_t move_ticks) {
    registers& die = dies_[static_cast<std::size_t>(f.die)];
    if (die.cache_used) {
      die.behind = f;
      return std::nullopt;
    }
    die.cache_used = true;
    return moved(f, f.ready, move_ticks);
  }

  // The command in the cache register of the die has left at `now`. Returns the command behind it,
  // if any, with the end of its move as its ready time.
  std::optional<flight> leave(std::int32_t die, std::int64_t now, std::int64_t move_ticks) {
    registers& of = dies_[static_cast<std::size_t>(die)];
    if (!of.behind) {
      of.cache_used = false;
      return std::nullopt;
    }
    const flight next = *std::exchange(of.behind, std::nullopt);
    return moved(next, std::max(next.ready, now), move_ticks);
  }

 private:
  struct registers {
    bool cache_used = false;
    std::optional<flight> behind;  // in the array or its register
  };

  static flight moved(flight f, std::int64_t from, std::int64_t move_ticks) {
    f.ready = from + move_ticks;
    return f;
  }

  std::vector<registers> dies_;
};

}  // namespace instinfer::flash
