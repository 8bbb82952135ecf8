#pragma once
// Who gets the bus of a channel when data and a command wait: the policy that matters most for
// time.
//
// - data_out_first: the default. It is the rule of MQSim (FAST'18), so makespans can be compared
//   with a published simulator to the nanosecond. Finished arrays drain first, which makes the
//   chips of a channel run in convoy: a channel takes the sum of its array and bus time, where the
//   larger would do. A short stall behind the bus breaks the convoy for good, so results jump where
//   the bus becomes faster than its filter (docs/drive-model.md).
// - command_first: keeps the dies busy, as controllers of today do. An idle die gets its command
//   before waiting data moves. It takes 5 to 40 % less time than data_out_first on bursts of random
//   pages.
//
// Cache read (cache_registers.hpp) lets an array work while its last pages go out. It shortens
// command_first by up to 16 % more if the move between the registers is free. A move of 3 us takes
// as long as the transfer of 4 KiB at 1.4 GB/s that it hides. With data_out_first cache read gains
// nothing: the data of a die goes before its next command.

#include <concepts>

namespace instinfer::flash {

enum class bus_turn { data_out, command };

// A policy is asked at each release of the bus at which data and a command of equal priority wait
// (channel_replay.hpp). If only one of them waits, it gets the bus. Semantic part: an answer
// depends only on earlier calls on the same object; each channel starts with a copy.
template <class P>
concept BusArbitration = std::copyable<P> && requires(P policy) {
  { policy.choose() } -> std::same_as<bus_turn>;
};

struct data_out_first {
  constexpr bus_turn choose() const { return bus_turn::data_out; }
};

struct command_first {
  constexpr bus_turn choose() const { return bus_turn::command; }
};

}  // namespace instinfer::flash
