#pragma once
// What one die of a mixed stream is doing, what it has suspended meanwhile, and what still leaves its cache register.

#include <cstdint>

#include "instinfer/ssd/spec/array_operation.hpp"

namespace instinfer::flash {

// A command on its die.
struct die_work {
  array_operation what = array_operation::read;
  std::int32_t priority = 0;
  std::int32_t pages = 0;
  std::int32_t next_page = 0;  // of a read, to cross the bus
  std::int32_t members = 0;    // which of the die's three lists of requests is this command's
  std::int64_t issue = 0;      // number of the command in the channel's order of issue
  std::int64_t left = 0;       // array time still to do when suspended
};

struct mixed_die {
  // With cache read, pages that were read are `full` while the cache register is in use, then `moving` to it.
  enum class phase { idle, array, data_out, suspending, full, moving };

  phase at = phase::idle;
  die_work work;                  // unless idle
  die_work leaving;               // the read in the cache register
  bool leaves = false;            // there is one
  std::int64_t leaves_since = 0;  // when it had moved
  std::int64_t left = 0;          // end of the cache register's last data-out
  die_work parked;                // the suspended program or erase
  bool suspended = false;         // there is one
  std::int64_t array_begin = 0;   // of the run
  std::int64_t until = 0;  // end of the array's run, of suspending or moving; data_out: ready since
  std::int64_t suspend_from = 0;  // the earliest suspend command
  std::int64_t held_since = 0;

  bool free() const { return at == phase::idle && !suspended && !leaves; }
  bool has_data() const { return leaves || at == phase::data_out; }
  die_work& data() { return leaves ? leaving : work; }
  const die_work& data() const { return leaves ? leaving : work; }
  std::int64_t data_since() const { return leaves ? leaves_since : until; }

  void run_array(std::int64_t begin, std::int64_t ticks) {
    at = phase::array;
    array_begin = begin;
    until = begin + ticks;
  }

  // The last page of data() has left.
  void end_data(std::int64_t end) {
    if (leaves) {
      leaves = false;
      left = end;
    } else {
      at = phase::idle;
    }
  }

  // The pages that were read go to the cache register, which is empty.
  void move(std::int64_t ticks) {
    at = phase::moving;
    until = (until > left ? until : left) + ticks;
  }
  void end_move() {
    leaving = work;
    leaves = true;
    leaves_since = until;
    at = phase::idle;
  }
};

}  // namespace instinfer::flash
