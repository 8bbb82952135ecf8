#pragma once
// What one die of a mixed stream is doing, and what it has suspended meanwhile.

#include <cstdint>

#include "instinfer/flash/operation.hpp"

namespace instinfer::flash {

// A command on its die.
struct die_work {
  operation what = operation::read;
  std::int32_t priority = 0;
  std::int32_t pages = 0;
  std::int32_t next_page = 0;  // of a read, to cross the bus
  std::int32_t members = 0;    // which of the die's two lists of requests is this command's
  std::int64_t issue = 0;      // number of the command in the channel's order of issue
  std::int64_t left = 0;       // array time still to do when suspended
};

struct mixed_die {
  enum class phase { idle, array, data_out, suspending };

  phase at = phase::idle;
  die_work work;                  // unless idle
  die_work parked;                // the suspended program or erase
  bool suspended = false;         // there is one
  std::int64_t array_begin = 0;   // of the run
  std::int64_t until = 0;         // end of the array's run, or of suspending; data_out: ready since
  std::int64_t suspend_from = 0;  // the earliest suspend command
  std::int64_t held_since = 0;

  bool free() const { return at == phase::idle && !suspended; }

  void run_array(std::int64_t begin, std::int64_t ticks) {
    at = phase::array;
    array_begin = begin;
    until = begin + ticks;
  }
};

}  // namespace instinfer::flash
