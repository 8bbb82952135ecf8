#pragma once
// What a die of a mixed stream asks the bus for: to start a command, or to suspend or resume one.

#include <cstdint>
#include <optional>

#include "instinfer/ssd/channel/array_suspensions.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"

namespace instinfer::flash {

enum class command_kind { start, suspend, resume };

struct bus_request {
  command_kind kind = command_kind::start;
  std::int32_t priority = 0;
};

// The next command that waits for a die.
struct waiting_command {
  array_operation what;
  std::int32_t priority;
};

// What a die asks for at `now`, if anything. busy: it takes no command, because its array works,
// its data goes out or it suspends. empty: no command is on it, not even a suspended one or one
// whose data still leaves its cache register.
inline std::optional<bus_request> bus_request_of(std::int32_t die, bool busy, bool empty,
                                                 const std::optional<waiting_command>& next,
                                                 const array_suspensions& suspensions,
                                                 std::int64_t now) {
  const bool read_waits = next && next->what == array_operation::read;
  if (busy) {
    if (read_waits && suspensions.may_suspend(die, next->priority, now)) {
      return bus_request{command_kind::suspend, next->priority};
    }
    return std::nullopt;
  }
  if (suspensions.suspended(die)) {
    const std::int32_t priority = suspensions.work(die).priority;
    return read_waits && next->priority < priority
               ? bus_request{command_kind::start, next->priority}
               : bus_request{command_kind::resume, priority};
  }
  if (read_waits || (next && empty)) {
    return bus_request{command_kind::start, next->priority};
  }
  return std::nullopt;
}

}  // namespace instinfer::flash
