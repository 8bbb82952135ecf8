#pragma once
// What the channels of a drive replay: pages, the commands that they wait in, and how long each operation takes.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "instinfer/ssd/channel/command_queues.hpp"
#include "instinfer/ssd/channel/operation_ticks.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// Mixed: see command_queues.hpp.
template <bool Mixed = false>
struct replay_work {
  // Throws bad_argument for an invalid geometry, timing, retry or suspension, error if a duration does not fit 63 bits of
  // ticks.
  replay_work(const geometry& g, const timing& t, const drive_rules& rules)
      : ticks{g, t, rules}, queues{g, rules.pair} {}

  // The planes of a command all work until the slowest is done.
  std::int64_t array_ticks(std::int32_t command) const {
    const operation what = queues.what(command);
    if (what == operation::read && ticks.reads_alike()) {
      return ticks.array(what);
    }
    std::int64_t longest = 0;
    for (std::int32_t k = 0; k < queues.page_count(command); ++k) {
      longest = std::max(longest, ticks.array(what, pages[queues.page(command, k)]));
    }
    return longest;
  }
  // Of a page's data-out.
  std::int64_t transfer_ticks(std::size_t page) const {
    return codewords.empty() ? ticks.transfer() : ticks.transfer(codewords[page]);
  }

  operation_ticks ticks;
  command_queues<Mixed> queues;
  std::span<const location> pages;
  std::span<const std::int32_t> codewords;  // of each page, that cross the bus (codewords.hpp); empty: all
};

}  // namespace instinfer::flash
