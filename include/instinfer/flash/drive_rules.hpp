#pragma once
// The options of a drive under flash::engine, beside its geometry and timing: which reads pair, repeat or use their cache
// registers, and what programs do while reads wait. The defaults are the plain drive.

#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/flash/batch_rules.hpp"
#include "instinfer/flash/suspension.hpp"

namespace instinfer::flash {

// Page types and decoding are the timing's (timing.hpp), the arbitration is flash::engine's template parameter.
struct drive_rules {
  batch_rules reads = {};
  // What an append makes the flash do waits for the next attend, and runs beside it with lower priority (background.hpp).
  bool background_writes = false;
  suspension suspend = {};  // of background programs and erases, for reads
};

// Throws bad_argument.
inline void validate(const drive_rules& rules) {
  validate(rules.reads.retry);
  validate(rules.suspend);
  require(rules.reads.arrive == arrival::together, [] {
    return std::string(
        "flash engine: pages of a call arrive together; arrival::one_by_one is for batches of your own");
  });
  require(!(rules.reads.cache_read && rules.background_writes), [] {
    return std::string(
        "flash engine: background writes and cache reads exclude each other, see mixed_timeline.hpp");
  });
}

}  // namespace instinfer::flash
