#pragma once
// The contract of an FTL policy: which pages share erase blocks, when blocks are erased, and which one is cleaned first.
//
//   kv_blocks      a set of open blocks per sequence, so that blocks hold pages that die together    (InstInfer §IV-C)
//   greedy_pages   one write frontier a channel, least live block first: the classic page-mapped FTL

#include <concepts>
#include <cstdint>

#include "instinfer/ssd/ftl/block_table.hpp"

namespace instinfer::flash {

// A *placement_handle* is what the host gives up as a whole: for the KV cache, a sequence. A *frontier* is a set of open blocks on
// each channel, `stripe` of them on as many planes, written in turn.
//
//   frontiers            how many there are, at least 1
//   stripe               planes of a channel that a frontier writes in turn; 0: all
//   frontier_of(placement_handle)    below `frontiers`
//   erase_below_blocks   of a channel: with fewer free blocks than that, a write erases dead blocks first; otherwise
//                        they wait for idle()
//   kept_blocks          of a channel, at least 1: free blocks that the host's pages may not take, so that live pages can
//                        be moved; where no more are left, the block with the lowest clean_cost is cleaned
//   clean_cost(block, now_s)  of a full block with a dead page; must not change while nothing happens
template <class P>
concept FtlPolicy = std::copyable<P> &&
                    requires(const P& p, std::uint32_t placement_handle, const block_info& block) {
                      { p.frontiers } -> std::convertible_to<std::uint32_t>;
                      { p.stripe } -> std::convertible_to<std::uint32_t>;
                      { p.erase_below_blocks } -> std::convertible_to<std::uint32_t>;
                      { p.kept_blocks } -> std::convertible_to<std::uint32_t>;
                      { p.frontier_of(placement_handle) } -> std::same_as<std::uint32_t>;
                      { p.clean_cost(block, placement_handle) } -> std::convertible_to<double>;
                    };

// The paper writes whole erase blocks of pages that are reclaimed together, so that no live page is ever moved. Here every
// sequence has blocks of its own, one open on each plane, for three reasons: striding over channels, then dies and planes
// then stays within blocks of one sequence; planes of a die fill at the same page number, so that they work on one
// command; and a sequence that ends leaves dead blocks only.
//
// The cost is room: about half a block a plane waits unwritten behind each open sequence. On 256 planes of 4 MiB blocks
// that is 512 MiB: 1.6 % of 2 TiB for a batch of 64, 6.3 % for 256. For many short sequences a narrower stripe divides it: with a stripe of
// 4, a sequence reads from 4 dies of a channel at a time. When a drive runs out of blocks, sequences share what room is left;
// then, and with more sequences than frontiers, blocks mix and write amplification may exceed 1.
struct kv_blocks {
  std::uint32_t frontiers = 256;  // the largest batch of InstInfer §VI
  std::uint32_t stripe = 0;
  std::uint32_t erase_below_blocks = 16;
  std::uint32_t kept_blocks = 2;  // one may fail while live pages are moved

  constexpr std::uint32_t frontier_of(std::uint32_t placement_handle) const {
    return placement_handle % frontiers;
  }
  constexpr double clean_cost(const block_info& block, std::uint32_t /*now_s*/) const {
    return block.live;
  }
  friend constexpr bool operator==(const kv_blocks&, const kv_blocks&) = default;
};

// Knows nothing of sequences. One threshold: blocks are erased, and cleaned, when the kept ones are all that is left.
struct greedy_pages {
  std::uint32_t frontiers = 1;
  std::uint32_t stripe = 0;
  std::uint32_t erase_below_blocks = 0;
  std::uint32_t kept_blocks = 2;

  constexpr std::uint32_t frontier_of(std::uint32_t /*placement_handle*/) const { return 0; }
  constexpr double clean_cost(const block_info& block, std::uint32_t /*now_s*/) const {
    return block.live;
  }
  friend constexpr bool operator==(const greedy_pages&, const greedy_pages&) = default;
};

}  // namespace instinfer::flash
