#pragma once
// What the channels of a drive replay: pages, the queues of their commands, and operation times.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "instinfer/ssd/channel/command_queues.hpp"
#include "instinfer/ssd/channel/operation_ticks.hpp"
#include "instinfer/ssd/spec/array_operation.hpp"
#include "instinfer/ssd/spec/drive_rules.hpp"
#include "instinfer/ssd/spec/geometry.hpp"
#include "instinfer/ssd/spec/location.hpp"
#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

// Mixed: see command_queues.hpp.
template <bool Mixed = false>
struct replay_work {
  // Throws bad_argument for an invalid geometry, timing, retry or suspension, error if a duration
  // does not fit 63 bits of ticks.
  replay_work(const geometry& g, const timing& t, const drive_rules& rules)
      : ticks{g, t, rules}, queues{g, rules.pair}, cache_read{rules.cache_read} {}

  bool has_cache_read() const { return cache_read; }
  array_operation what(std::int32_t command) const { return queues.what(command); }
  // The planes of a command all work until the slowest is done.
  std::int64_t array_ticks(std::int32_t command) const {
    const array_operation of = what(command);
    if (of == array_operation::read && ticks.reads_alike()) {
      return ticks.array(of);
    }
    std::int64_t longest = 0;
    for (std::int32_t k = 0; k < queues.page_count(command); ++k) {
      longest = std::max(longest, ticks.array(of, pages[queues.page(command, k)]));
    }
    return longest;
  }
  // Of a page's data-out.
  std::int64_t transfer_ticks(std::size_t page) const {
    return codewords.empty() ? ticks.transfer() : ticks.transfer(codewords[page]);
  }

  operation_ticks ticks;
  command_queues<Mixed> queues;
  bool cache_read;
  std::span<const location> pages;
  std::span<const std::int32_t> codewords;  // of each page that cross the bus; empty: all
};

// The same work, for a batch of whole pages that are read with one array time and without the cache
// register. The compiler removes every question about what such a batch lacks, which makes its
// replay a tenth faster.
struct plain_reads {
  static bool can_be(const replay_work<>& work) {
    return !work.cache_read && work.queues.what(0) == array_operation::read &&
           work.ticks.reads_alike() && work.codewords.empty();
  }
  // Precondition: can_be(work).
  explicit plain_reads(replay_work<>& work)
      : ticks{work.ticks}, queues{work.queues}, pages{work.pages} {}

  static constexpr bool has_cache_read() { return false; }
  static constexpr array_operation what(std::int32_t /*command*/) { return array_operation::read; }
  std::int64_t array_ticks(std::int32_t /*command*/) const {
    return ticks.array(array_operation::read);
  }
  std::int64_t transfer_ticks(std::size_t /*page*/) const { return ticks.transfer(); }

  const operation_ticks& ticks;
  command_queues<>& queues;
  std::span<const location> pages;
};

}  // namespace instinfer::flash
