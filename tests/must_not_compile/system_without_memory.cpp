// expect: instinfer: the system lacks name, job, memory, prefill or step, see system/concepts.hpp
// A system that gives times, but not the memory that it needs.
#include "instinfer/system/run.hpp"

struct timed_only {
  static constexpr std::string_view name = "timed only";
  instinfer::system::workload job() const { return {}; }
  instinfer::system::prefill_time prefill() const { return {}; }
  instinfer::system::decode_step step(double /*context*/) const { return {}; }
#ifdef CONTROL
  instinfer::system::memory_use memory() const { return {}; }
#endif
};

double use() { return instinfer::system::run(timed_only{}).tokens_per_s(); }
