#pragma once
// Programs, erases and moves that an append leaves for later, beside the reads of the next attend: lower priority, and
// suspended for reads where the rules say so (mixed_timeline.hpp).

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/flash/drive_rules.hpp"
#include "instinfer/flash/ftl_counters.hpp"
#include "instinfer/flash/mixed_timeline.hpp"
#include "instinfer/flash/presets.hpp"

namespace instinfer::flash {

// The rule. Reads come when they would on a drive without the writes, and the writes all at the start; nothing orders the
// writes among each other. An attend ends later by as much as its last page comes later. Writes that are not done
// by then go on; the next call does not wait for them.
template <class Arbitration>
class background_writes {
 public:
  background_writes(const drive_spec& drive, const drive_rules& rules)
      : timeline_{drive.geometry,
                  drive.timing,
                  {.pair = rules.reads.pair,
                   .retry = rules.reads.retry,
                   .suspend = rules.suspend}} {}

  bool empty() const { return writes_.empty(); }

  void add(const ftl_operations& operations) {
    const auto put = [&](operation what, std::span<const location> all) {
      for (const location& at : all) {
        writes_.push_back({.what = what, .where = at, .priority = 1});
      }
    };
    put(operation::read, operations.reads);
    put(operation::program, operations.programs);
    put(operation::erase, operations.erases);
  }

  struct effect {
    double delay_ns = 0;  // of the last read
    double end_ns = 0;    // of the last write
  };
  // reads: by arrival, of priority 0. Forgets the writes.
  effect beside(std::span<const request> reads) {
    const std::int64_t alone = run(reads, reads.size()).read;
    writes_.insert(writes_.end(), reads.begin(), reads.end());
    const ends together = run(writes_, reads.size());
    writes_.clear();
    const double ns_per_tick = 1e-3 / static_cast<double>(timeline_.scale().ticks_per_ps);
    return {.delay_ns = static_cast<double>(std::max<std::int64_t>(together.read - alone, 0)) * ns_per_tick,
            .end_ns = static_cast<double>(together.write) * ns_per_tick};
  }

 private:
  struct ends {
    std::int64_t read = 0;
    std::int64_t write = 0;
  };
  // The last finish times. The last `reads` requests are the reads.
  ends run(std::span<const request> all, std::size_t reads) {
    finish_.resize(all.size());
    timeline_.run(all, finish_);
    ends last;
    for (std::size_t i = 0; i < all.size(); ++i) {
      std::int64_t& of = i + reads < all.size() ? last.write : last.read;
      of = std::max(of, finish_[i]);
    }
    return last;
  }

  mixed_timeline<Arbitration> timeline_;
  std::vector<request> writes_;
  std::vector<std::int64_t> finish_;
};

}  // namespace instinfer::flash
