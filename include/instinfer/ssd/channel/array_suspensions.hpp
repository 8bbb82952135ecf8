#pragma once
// The programs and erases in the arrays of one channel that reads may suspend, and the suspended
// ones.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "instinfer/ssd/channel/flight_queue.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/suspension.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// The rules are those of suspension.hpp.
class array_suspensions {
 public:
  array_suspensions(std::int32_t dies, const suspension_ticks& ticks)
      : ticks_{ticks}, dies_(static_cast<std::size_t>(dies)) {}

  void clear() { std::fill(dies_.begin(), dies_.end(), die_state{}); }

  // A program or erase works in the array of its die from `begin` to f.ready.
  void start(const flight& f, array_operation what, std::int64_t begin) {
    at(f.die) = {
        .now = phase::works, .what = what, .begin = begin, .suspend_from = 0, .left = 0, .work = f};
  }
  void end(std::int32_t die) { at(die).now = phase::none; }

  // Begin of the last run of the array.
  std::int64_t run_begin(std::int32_t die) const { return at(die).begin; }

  // Whether a read of this priority that waits for the die may suspend its array now. The operation
  // in the array must have lower priority, have run for long enough, and end after the read could
  // start.
  bool may_suspend(std::int32_t die, std::int32_t priority, std::int64_t now) const {
    const die_state& s = at(die);
    return s.now == phase::works && ticks_.allows(s.what) && priority < s.work.priority &&
           now >= s.suspend_from && now + ticks_.command() + ticks_.latency(s.what) < s.work.ready;
  }
  // The first time after `now` at which an array has run for long enough to be suspended;
  // never_ticks if there is none.
  std::int64_t next_chance(std::int64_t now) const {
    std::int64_t first = never_ticks;
    for (const die_state& s : dies_) {
      if (s.now == phase::works && s.suspend_from > now) {
        first = std::min(first, s.suspend_from);
      }
    }
    return first;
  }

  // The cycles of the suspend command end at `end`. Returns when the die accepts commands again.
  // left(die) is then the array time that remains.
  std::int64_t suspend(std::int32_t die, std::int64_t end) {
    die_state& s = at(die);
    s.now = phase::suspending;
    s.left = s.work.ready - end;
    return end + ticks_.latency(s.what);
  }
  void take_commands(std::int32_t die) { at(die).now = phase::suspended; }
  bool suspending(std::int32_t die) const { return at(die).now == phase::suspending; }
  bool suspended(std::int32_t die) const { return at(die).now == phase::suspended; }
  std::int64_t left(std::int32_t die) const { return at(die).left; }
  const flight& work(std::int32_t die) const { return at(die).work; }

  // The cycles of the resume command end at `end`. Returns the operation that works in the array
  // again, with its new end.
  flight resume(std::int32_t die, std::int64_t end) {
    die_state& s = at(die);
    s.now = phase::works;
    s.begin = end + ticks_.resume();
    s.suspend_from = s.begin + ticks_.least_run();
    s.work.ready = s.begin + s.left;
    return s.work;
  }

  // Of a suspend or resume command.
  std::int64_t cycles() const { return ticks_.command(); }

 private:
  enum class phase { none, works, suspending, suspended };
  struct die_state {
    phase now = phase::none;
    array_operation what = array_operation::program;
    std::int64_t begin = 0;         // of the run
    std::int64_t suspend_from = 0;  // the earliest suspend command
    std::int64_t left = 0;
    flight work;
  };
  die_state& at(std::int32_t die) { return dies_[static_cast<std::size_t>(die)]; }
  const die_state& at(std::int32_t die) const { return dies_[static_cast<std::size_t>(die)]; }

  suspension_ticks ticks_;
  std::vector<die_state> dies_;
};

}  // namespace instinfer::flash
