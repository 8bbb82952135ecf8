#pragma once
// The contract of an FTL policy: which pages share erase blocks, when blocks are erased, and which
// block is the victim of garbage collection.
//
//   kv_blocks      open blocks per sequence, so that pages that die together share blocks
//                                                                              (InstInfer §IV-C)
//   greedy_pages   one write frontier per channel; the victim is the block with the fewest live
//                  pages: the classic page-mapped FTL

#include <concepts>
#include <cstdint>

#include "instinfer/ssd/ftl/block_table.hpp"

namespace instinfer::flash {

// A *placement handle* groups pages that the host frees together: in the KV cache, a sequence. A
// *frontier* is a set of open blocks on each channel: `stripe` blocks on as many planes, written in
// turn.
//
//   frontiers                       number of frontiers, at least 1
//   stripe                          planes of a channel that a frontier writes in turn; 0: all
//   frontier_of(placement_handle)   a frontier below `frontiers`
//   erase_below_blocks              free blocks per channel: with fewer, a write first erases dead
//                                   blocks; otherwise dead blocks wait for idle()
//   kept_blocks                     free blocks per channel, at least 1, reserved for moving live
//                                   pages; if no other block is free, garbage collection starts
//   victim_cost(block, now_s)       cost of collecting a full block with a dead page; the block
//                                   with the lowest cost is the victim. Without writes, releases or
//                                   a new time the cost must not change
template <class P>
concept FtlPolicy = std::copyable<P> && requires(const P& p, std::uint32_t placement_handle,
                                                 std::uint32_t now_s, const block_info& block) {
  { p.frontiers } -> std::convertible_to<std::uint32_t>;
  { p.stripe } -> std::convertible_to<std::uint32_t>;
  { p.erase_below_blocks } -> std::convertible_to<std::uint32_t>;
  { p.kept_blocks } -> std::convertible_to<std::uint32_t>;
  { p.frontier_of(placement_handle) } -> std::same_as<std::uint32_t>;
  { p.victim_cost(block, now_s) } -> std::convertible_to<double>;
};

// The paper writes whole erase blocks of pages that are reclaimed together, so that no live page is
// ever moved. Here every sequence has its own blocks, one open on each plane, for three reasons.
// Striding over channels, then dies and planes, stays within blocks of one sequence. The planes of
// a die fill at the same page number, so one command serves all of them. A sequence that ends
// leaves only dead blocks.
//
// The cost is space: each open sequence leaves about half a block per plane unwritten. With 256
// planes of 4 MiB blocks this is 512 MiB: 1.6 % of 2 TiB for a batch of 64, 6.3 % for 256. A
// narrower stripe reduces it for many short sequences: with a stripe of 4, a sequence reads from 4
// dies of a channel at a time. When a drive runs out of blocks, sequences share the remaining room.
// Then, and with more sequences than frontiers, blocks mix pages of several sequences, and write
// amplification may exceed 1.
struct kv_blocks {
  std::uint32_t frontiers = 256;  // the largest batch of InstInfer §VI
  std::uint32_t stripe = 0;
  std::uint32_t erase_below_blocks = 16;
  std::uint32_t kept_blocks = 2;  // one may fail while live pages are moved

  constexpr std::uint32_t frontier_of(std::uint32_t placement_handle) const {
    return placement_handle % frontiers;
  }
  constexpr double victim_cost(const block_info& block, std::uint32_t /*now_s*/) const {
    return block.live;
  }
  friend constexpr bool operator==(const kv_blocks&, const kv_blocks&) = default;
};

// Ignores sequences. It has one threshold: when only the kept blocks are free, it erases dead
// blocks and collects victims.
struct greedy_pages {
  std::uint32_t frontiers = 1;
  std::uint32_t stripe = 0;
  std::uint32_t erase_below_blocks = 0;
  std::uint32_t kept_blocks = 2;

  constexpr std::uint32_t frontier_of(std::uint32_t /*placement_handle*/) const { return 0; }
  constexpr double victim_cost(const block_info& block, std::uint32_t /*now_s*/) const {
    return block.live;
  }
  friend constexpr bool operator==(const greedy_pages&, const greedy_pages&) = default;
};

}  // namespace instinfer::flash
