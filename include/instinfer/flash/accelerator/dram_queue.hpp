#pragma once
// Pages of the group buffer on their way from the DRAM of the drive to the kernels, one after the
// other in the order of release.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "instinfer/ssd/spec/timing.hpp"

namespace instinfer::flash {

class dram_queue {
 public:
  void clear() {
    pages_.clear();
    loaded_ = 0;
    free_at_ = busy_ = 0;
  }

  // Precondition: `at` does not fall from page to page.
  void come(std::size_t task, std::int64_t at) { pages_.push_back({task, at}); }

  // When the DRAM is free and has a page, so that it asks for a place behind it; never_ticks
  // without a page.
  std::int64_t asks_at() const {
    return loaded_ == pages_.size() ? never_ticks : std::max(free_at_, pages_[loaded_].there_at);
  }
  std::size_t task() const { return pages_[loaded_].task; }

  // The page is read from `begin` on for `ticks`. Returns when it is loaded.
  std::int64_t load(std::int64_t begin, std::int64_t ticks) {
    ++loaded_;
    busy_ += ticks;
    return free_at_ = begin + ticks;
  }

  std::int64_t busy_ticks() const { return busy_; }

 private:
  struct page {
    std::size_t task;
    std::int64_t there_at;
  };
  std::vector<page> pages_;
  std::size_t loaded_ = 0;
  std::int64_t free_at_ = 0;
  std::int64_t busy_ = 0;
};

}  // namespace instinfer::flash
