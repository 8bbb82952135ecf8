// expect: instinfer: an FTL policy lacks a knob, frontier_of(placement_handle) or victim_cost(block, now_s), see ssd/ftl/policy.hpp
// A policy that does not say which block is the victim of garbage collection.
#include "instinfer/ssd/ftl/ftl.hpp"

namespace flash = instinfer::flash;

struct oldest_first {
  std::uint32_t frontiers = 1, stripe = 0, erase_below_blocks = 0, kept_blocks = 1;
  std::uint32_t frontier_of(std::uint32_t /*placement_handle*/) const { return 0; }
#ifdef CONTROL
  double victim_cost(const flash::block_info& block, std::uint32_t /*now_s*/) const {
    return block.written_at_s;
  }
#endif
};

void use() { flash::ftl<oldest_first> drive({.blocks = 8, .pages = 4}, 4); }
