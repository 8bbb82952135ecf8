#pragma once
// The options of a drive's flash, for every replay: which pages share a command, how they arrive,
// which registers and retries reads use, and whether programs are suspended for reads.

#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/spec/codewords.hpp"
#include "instinfer/ssd/spec/read_retry.hpp"
#include "instinfer/ssd/spec/suspension.hpp"

namespace instinfer::flash {

// Which pages of a die, on different planes, share one multi-plane command.
enum class pairing {
  none,
  same_page,            // equal page number, any blocks: MQSim
  same_block_and_page,  // also equal block number: what every multi-plane part allows, the default
  any                   // any pages: planes read independently of each other, as on newer parts
};

// How the pages of a batch reach the channels, all of them at time 0.
enum class arrival {
  together,   // one command of many pages: the queues are full before the first command is issued
  one_by_one  // a request per page: the first to reach an idle channel is issued at once, alone
};

// The defaults are the plain drive. Page types and decoding are part of the timing (timing.hpp).
// Arbitration and background writes are template parameters.
struct drive_rules {
  pairing pair = pairing::same_block_and_page;
  arrival arrive = arrival::together;  // one_by_one: only for a batch on a timeline
  bool cache_read = false;             // ssd/channel/cache_registers.hpp
  read_retry retry = {};
  suspension suspend = {};  // of programs and erases for reads of higher priority
  transfer_size transfer = transfer_size::page;  // for reads of attention (codewords.hpp)
};

// The rules of the reference simulator (MQSim): for a request of many pages, such as a sequential
// batch, and for a burst of requests of one page.
inline constexpr drive_rules mqsim_request{.pair = pairing::same_page};
inline constexpr drive_rules mqsim_burst{.pair = pairing::same_page, .arrive = arrival::one_by_one};

// Planes that read independently. Whole systems take these rules (system/kv_access.hpp): without
// them SparF's scattered pages come at 5.8 GB/s where dense attention's come at 7.5, and the paper
// has no such gap. Its decode reads 7.66 GB/s in a run whose volume is 0.53 of dense (Table III),
// so in a run of SparF. Assumed: nothing says whether its part reads like this.
inline constexpr drive_rules independent_planes{.pair = pairing::any};

// Throws bad_argument for retries or a suspension out of range.
inline void validate(const drive_rules& rules) {
  validate(rules.retry);
  validate(rules.suspend);
}

// For replays in which pages arrive over time. Throws bad_argument; `who` begins its sentence.
inline void require_together(const drive_rules& rules, const char* who) {
  require(rules.arrive == arrival::together, [&] {
    return std::string(who) + " arrive together; arrival::one_by_one is for batches";
  });
}

}  // namespace instinfer::flash
