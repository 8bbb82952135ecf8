#pragma once
// Who gets a channel's bus when it becomes free: the policy that decides a flash model's answer.
//
// - data_out_first: the default, MQSim's rule (FAST'18), so that makespans can be compared with a
//   published simulator to the nanosecond. Finished arrays drain first, which makes the chips of a
//   channel run in convoy.
// - command_first: keeps the dies busy, an idle die gets its command before waiting data moves. 5
//   to 40 % shorter than data_out_first on bursts of random pages.
//
// Cache read (cache_registers.hpp) lets an array work while its last pages go out. It shortens
// command_first by up to 16 % more where the move between the registers is free; a move of 3 us takes
// as long as it hides of 4 KiB at 1.4 GB/s. With data_out_first it gains nothing: a die's own data
// goes before its next command.

#include <concepts>

namespace instinfer::flash {

enum class bus_turn { data_out, command };

// Asked at each release of the bus at which both wait: the oldest finished array (FIFO in order of
// array finish), and a command for an idle die (round robin over the dies, see die_ring.hpp). If
// only one waits, it gets the bus. Semantic part: the answers depend on nothing but the earlier
// calls on the same object; each channel starts with a copy.
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
