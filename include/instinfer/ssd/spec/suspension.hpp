#pragma once
// Suspension of programs and erases, so that urgent reads do not wait for them: its rules and
// costs.

#include <algorithm>
#include <cstdint>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// Off by default. A die that programs or erases gets the suspend command when its next request is a
// read of higher priority that would start earlier by it. The array works until the end of the
// command's cycles; the die accepts commands again when it has suspended. It then serves the reads
// of higher priority than the suspended operation, one after the other, and gets the resume command
// when no such read is left. After it, the array does the rest of its work.
//
// Latencies of the suspension are the defaults of MQSim's Suspend_Program_Time and
// Suspend_Erase_Time (FAST'18). Assumed: the cycles (those of a read without its address), the
// latency of resuming, and the least run between a resumption and the next suspension.
struct suspension {
  bool of_programs = false;
  bool of_erases = false;
  // from the end of the cycles until the die accepts reads
  std::int64_t program_ps = 100 * ps_per_us;
  std::int64_t erase_ps = 700 * ps_per_us;
  std::int64_t command_ps = 140 * ps_per_ns;  // bus cycles of a suspend, and of a resume
  std::int64_t resume_ps = 5 * ps_per_us;     // from the end of the cycles until the array works
  std::int64_t least_run_ps = 100 * ps_per_us;

  constexpr bool allows(array_operation what) const {
    return (what == array_operation::program && of_programs) ||
           (what == array_operation::erase && of_erases);
  }
  constexpr std::int64_t latency_ps(array_operation what) const {
    return what == array_operation::erase ? erase_ps : program_ps;
  }

  friend constexpr bool operator==(const suspension&, const suspension&) = default;
};

// Throws bad_argument with the name of the field.
inline void validate(const suspension& s) {
  const auto check = [](const char* field, std::int64_t value) {
    require(value >= 0 && value <= max_duration_ps, [&] {
      return std::string("flash suspension: ") + field + " must lie in [0, " +
             std::to_string(max_duration_ps) + "] ps, got " + std::to_string(value);
    });
  };
  check("program_ps", s.program_ps);
  check("erase_ps", s.erase_ps);
  check("command_ps", s.command_ps);
  check("resume_ps", s.resume_ps);
  check("least_run_ps", s.least_run_ps);
}

// The rules in ticks. Throws error for a duration that does not fit in 63 bits.
class suspension_ticks {
 public:
  suspension_ticks(const suspension& s, const tick_scale& scale)
      : rules_{(validate(s), s)},
        program_{scale.from_ps(s.program_ps)},
        erase_{scale.from_ps(s.erase_ps)},
        command_{scale.from_ps(s.command_ps)},
        resume_{scale.from_ps(s.resume_ps)},
        least_run_{scale.from_ps(s.least_run_ps)} {}

  bool allows(array_operation what) const { return rules_.allows(what); }
  std::int64_t latency(array_operation what) const {
    return what == array_operation::erase ? erase_ : program_;
  }
  std::int64_t command() const { return command_; }
  std::int64_t resume() const { return resume_; }
  std::int64_t least_run() const { return least_run_; }
  // An upper bound of the time that one suspension adds.
  double longest() const {
    return 2.0 * static_cast<double>(command_) + static_cast<double>(resume_) +
           static_cast<double>(least_run_) + static_cast<double>(std::max(program_, erase_));
  }

 private:
  suspension rules_;
  std::int64_t program_;
  std::int64_t erase_;
  std::int64_t command_;
  std::int64_t resume_;
  std::int64_t least_run_;
};

}  // namespace instinfer::flash
