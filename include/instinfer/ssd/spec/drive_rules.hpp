#pragma once
// The options of a drive in flash::engine, apart from geometry and timing.
// They say which reads are paired, repeated or use cache registers, and what programs do while
// reads wait. The defaults are the plain drive.

#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/channel/batch_rules.hpp"
#include "instinfer/ssd/spec/codewords.hpp"
#include "instinfer/ssd/spec/suspension.hpp"

namespace instinfer::flash {

// Page types and decoding are part of the timing (timing.hpp). Arbitration and background writes
// are template parameters of flash::engine.
struct drive_rules {
  batch_rules reads = {};
  transfer_size transfer = transfer_size::page;  // for reads of attention (codewords.hpp)
  suspension suspend = {};  // of background programs and erases (background_writes.hpp)
};

// Throws bad_argument for rules out of range.
inline void validate(const drive_rules& rules) {
  validate(rules.reads.retry);
  validate(rules.suspend);
  require(rules.reads.arrive == arrival::together, [] {
    return std::string(
        "flash engine: pages of a call arrive together; arrival::one_by_one is for batches of your own");
  });
}

}  // namespace instinfer::flash
