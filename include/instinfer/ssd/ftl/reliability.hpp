#pragma once
// Conditions for moving a block's pages: many reads (read disturb), a long time (retention), or
// pages that keep a block from being worn.
// All are off by default. ftl::refresh moves the pages and counts them.

#include <cstdint>
#include <limits>
#include <string>

#include "instinfer/core/errors.hpp"
#include "instinfer/ssd/ftl/block_table.hpp"

namespace instinfer::flash {

// A condition for ftl::refresh: f.refresh(limits). The caller reports reads with ftl::count_read.
struct refresh_limits {
  static constexpr std::uint32_t off = std::numeric_limits<std::uint32_t>::max();

  std::uint32_t reads = off;  // of a block's pages since its erase
  std::uint32_t age_s = off;  // age of its oldest page

  constexpr bool operator()(const block_info& block, std::uint32_t now_s) const {
    const std::uint32_t age_s_now = now_s > block.written_at_s ? now_s - block.written_at_s : 0;
    return (reads != off && block.reads >= reads) || (age_s != off && age_s_now >= age_s);
  }
};

// A condition for static wear levelling: blocks with few erases give their pages to other blocks
// and are then written again. It is for data that outlives many cycles of other data:
// f.refresh(lagging{f.wear().most - spread}).
struct lagging {
  std::uint32_t fewer_erases_than = 0;

  constexpr bool operator()(const block_info& block, std::uint32_t /*now_s*/) const {
    return block.erases < fewer_erases_than;
  }
};

// Reads that a block tolerates before bits may flip: "most devices support about 100,000 reads"
// (QNX Neutrino, ETFS read degradation monitoring). Assumed for the paper's 3D flash.
inline constexpr std::uint32_t common_read_limit = 100'000;

// Time that cells hold data when retention is relaxed as in §VI-F (endurance.hpp): 21 days.
inline constexpr std::uint32_t three_weeks_s = 21 * 86'400;

// Decode reads the same pages for each token. With `reads_per_page` reads of a page per token (1:
// dense attention; down to 1/8: sparse), the blocks of a sequence reach the limit every limit /
// (pages per block x reads_per_page) tokens. A 1024-page block with dense reads reaches it after 98
// tokens. Throws bad_argument for a share that is not positive or a block without pages.
inline double tokens_between_refreshes(std::uint32_t read_limit, std::uint32_t pages_per_block,
                                       double reads_per_page) {
  require(pages_per_block > 0 && reads_per_page > 0, [&] {
    return "tokens_between_refreshes: pages_per_block and reads_per_page must be above 0, got " +
           std::to_string(pages_per_block) + " and " + std::to_string(reads_per_page);
  });
  return read_limit / (pages_per_block * reads_per_page);
}

// Programs per page of a sequence that is written, decoded for `tokens` tokens, and reclaimed: 1,
// plus 1 per refresh.
inline double write_amplification_of_reading(double tokens, std::uint32_t read_limit,
                                             std::uint32_t pages_per_block, double reads_per_page) {
  return 1 + static_cast<double>(static_cast<std::uint64_t>(
                 tokens / tokens_between_refreshes(read_limit, pages_per_block, reads_per_page)));
}

}  // namespace instinfer::flash
