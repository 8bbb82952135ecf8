#pragma once
// The options of a batch on a timeline: what pairs, how it arrives, which registers and retries its
// reads use. The defaults are the plain drive.

#include "instinfer/ssd/spec/read_retry.hpp"

namespace instinfer::flash {

// Which pages of a die, on different planes, share one multi-plane command.
enum class pairing {
  none,
  same_page,           // equal page number, any blocks: MQSim
  same_block_and_page  // also equal block number: what every multi-plane part allows, the default
};

// How a batch reaches the channels, all of it at time 0.
enum class arrival {
  together,   // one command of many pages: the queues are full before the first command is issued
  one_by_one  // a request per page: the first to reach an idle channel is issued at once, alone
};

struct batch_rules {
  pairing pair = pairing::same_block_and_page;
  arrival arrive = arrival::together;
  bool cache_read = false;  // see cache_registers.hpp
  read_retry retry = {};
};

// The reference simulator's (MQSim): a request of many pages, such as a sequential batch, and a burst of requests of one page.
inline constexpr batch_rules mqsim_request{.pair = pairing::same_page};
inline constexpr batch_rules mqsim_burst{.pair = pairing::same_page, .arrive = arrival::one_by_one};

}  // namespace instinfer::flash
