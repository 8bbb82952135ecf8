#pragma once
// Counters of an FTL: programmed pages by cause, erases, failures, and the resulting write
// amplification; and the operations of one call, for a timeline to charge.

#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

// Why a live page was moved: garbage collection, a failed block, or refresh (to keep it readable
// for longer).
enum class move_cause : std::uint8_t { space, failure, refresh };

struct ftl_counters {
  std::uint64_t host_pages = 0;  // written by the host
  std::uint64_t moved_for_space = 0;
  std::uint64_t moved_for_failure = 0;
  std::uint64_t moved_for_refresh = 0;
  std::uint64_t failed_programs = 0;
  std::uint64_t erases = 0;  // with failed ones
  std::uint64_t failed_erases = 0;

  constexpr std::uint64_t moved() const {
    return moved_for_space + moved_for_failure + moved_for_refresh;
  }
  constexpr std::uint64_t programs() const { return host_pages + moved() + failed_programs; }
  // Programs per page written by the host; 1 before the first.
  constexpr double write_amplification() const {
    return host_pages == 0 ? 1.0
                           : static_cast<double>(programs()) / static_cast<double>(host_pages);
  }
  constexpr void count_move(move_cause cause) {
    ++(cause == move_cause::space     ? moved_for_space
       : cause == move_cause::failure ? moved_for_failure
                                      : moved_for_refresh);
  }
  friend constexpr bool operator==(const ftl_counters&, const ftl_counters&) = default;
};

// Operations in the order of execution, one list per kind. `page` has no meaning for an erase.
// Reads are those of moved pages.
struct ftl_operations {
  std::vector<location> reads;
  std::vector<location> programs;
  std::vector<location> erases;

  void clear() {
    reads.clear();
    programs.clear();
    erases.clear();
  }
};

// Erase counts of the drive's blocks, without bad blocks.
struct wear_summary {
  std::uint32_t least = 0;
  std::uint32_t most = 0;
  double mean = 0;
  std::uint64_t blocks = 0;
};

}  // namespace instinfer::flash
