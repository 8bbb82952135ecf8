#pragma once
// One run of a system: prefill, then every decode step, summed over the growing context.

#include <algorithm>

#include "instinfer/system/concepts.hpp"

namespace instinfer::system {

// Samples steps at the middles of up to `samples` equal parts of the output. A run that does not
// fit in some memory is reported with its verdict, and with the times it would take.
template <class S>
report run(const S& s, int samples = 64) {
  static_assert(
      System<S>,
      "instinfer: the system lacks name, job, memory, prefill or step, see system/concepts.hpp");
  report done{
      .job = s.job(), .memory = s.memory(), .prefill = s.prefill(), .mean = {}, .decode_s = 0};
  const auto parts = static_cast<int>(std::min<std::int64_t>(samples, done.job.output_tokens));
  for (int i = 0; i < parts; ++i) {
    const decode_step step =
        s.step(static_cast<double>(done.job.input_tokens) +
               (i + 0.5) / parts * static_cast<double>(done.job.output_tokens));
    done.mean.time += step.time.scaled(1.0 / parts);
    done.mean.bytes += step.bytes.scaled(1.0 / parts);
  }
  done.decode_s = done.mean.time.total_s() * static_cast<double>(done.job.output_tokens);
  return done;
}

}  // namespace instinfer::system
