#pragma once
// Instruments for path tests: a store that counts and poisons page reads, and an observer that
// keeps what it saw.

#include <limits>
#include <map>
#include <set>
#include <vector>

#include "instinfer/attention/machine.hpp"
#include "instinfer/store/pages/memory.hpp"

namespace instinfer::test {

// A memory store that counts the reads of every page. Its pages lie 4 bytes behind a cache line,
// and apart.
class watched_store {
 public:
  static constexpr bool holds_data = true;
  watched_store(std::uint32_t channels, std::uint64_t pages, std::uint32_t page_bytes)
      : pages_{channels, pages, page_bytes + line_bytes}, page_bytes_{page_bytes} {}

  page_id allocate(std::uint32_t channel) { return pages_.allocate(channel); }
  void release(page_id page) noexcept { pages_.release(page); }
  std::uint64_t free_pages() const { return pages_.free_pages(); }
  std::uint64_t capacity_pages() const { return pages_.capacity_pages(); }
  std::uint32_t channels() const { return pages_.channels(); }
  std::span<std::byte> write(page_id page) { return pages_.write(page).subspan(4, page_bytes_); }
  std::span<const std::byte> view(page_id page) const {
    ++reads[page];
    return pages_.view(page).subspan(4, page_bytes_);
  }

  mutable std::map<page_id, int> reads;

 private:
  static constexpr std::uint32_t line_bytes = 64;
  store::memory pages_;
  std::uint32_t page_bytes_;
};

// What one head's machine chose and planned, copied.
struct head_record {
  std::vector<std::vector<int>> chosen[16];  // by operation
  std::vector<page_read> reads;
  std::vector<access_plan> plans;
  std::map<page_id, int> pages;  // planned flash reads
  std::uint64_t products = 0;    // of queries with rows of summaries

  void chose(attention::operation op, index_view set) {
    auto& list = chosen[static_cast<int>(op)].emplace_back();
    set.for_each([&](std::uint32_t i) { list.push_back(static_cast<int>(i)); });
  }
  void accessed(attention::operation, const access_plan& plan) {
    plans.push_back(plan);
    for (const page_read& read : plan.reads()) {
      reads.push_back(read);
      if (!read.buffered) {
        ++pages[read.page];
      }
    }
  }
  void scored(attention::operation, std::uint32_t rows, std::size_t, std::uint32_t heads_) {
    products += std::uint64_t{rows} * heads_;
  }
};

struct recorder {
  std::vector<head_record> heads;
  explicit recorder(int kv_heads) : heads(static_cast<std::size_t>(kv_heads)) {}
  head_record& head(std::uint32_t h) { return heads[h]; }

  std::map<page_id, int> pages() const {
    std::map<page_id, int> all;
    for (const head_record& h : heads) {
      for (const auto& [page, n] : h.pages) {
        all[page] += n;
      }
    }
    return all;
  }
};

}  // namespace instinfer::test
