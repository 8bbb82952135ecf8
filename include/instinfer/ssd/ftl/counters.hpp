#pragma once
// What an FTL has done: pages programmed and for whom, erases, failures; hence write amplification. And the operations of
// one call, for a timeline to be charged with.

#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/ssd/spec/location.hpp"

namespace instinfer::flash {

// Why a live page was moved: to free its block (garbage collection), because the block failed, or to
// read it safely for longer.
enum class move_cause : std::uint8_t { space, failure, refresh };

struct ftl_counters {
  std::uint64_t host_pages = 0;  // written by the host
  std::uint64_t moved_for_space = 0;
  std::uint64_t moved_for_failure = 0;
  std::uint64_t moved_for_refresh = 0;
  std::uint64_t failed_programs = 0;
  std::uint64_t erases = 0;  // failed ones too
  std::uint64_t failed_erases = 0;

  constexpr std::uint64_t moved() const {
    return moved_for_space + moved_for_failure + moved_for_refresh;
  }
  constexpr std::uint64_t programs() const { return host_pages + moved() + failed_programs; }
  // Programs per page that the host wrote; 1 before it wrote any.
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

// Operations in the order they are done, each kind by itself; of an erase, `page` means nothing. A read here is of a page
// that is moved.
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

// Erases of the blocks of a drive that are not bad.
struct wear_summary {
  std::uint32_t least = 0;
  std::uint32_t most = 0;
  double mean = 0;
  std::uint64_t blocks = 0;
};

}  // namespace instinfer::flash
