#pragma once
// The options of a mixed stream: what pairs, repeats, is suspended, or reads with its cache register.

#include "instinfer/ssd/channel/batch_rules.hpp"
#include "instinfer/ssd/spec/read_retry.hpp"
#include "instinfer/ssd/spec/suspension.hpp"

namespace instinfer::flash {

struct mixed_rules {
  pairing pair = pairing::same_block_and_page;
  read_retry retry = {};
  suspension suspend = {};
  bool cache_read = false;  // see cache_registers.hpp
};

}  // namespace instinfer::flash
