#pragma once
// The access plan: a value that lists what one operation of the attention machine reads from one
// head's pages. Compute paths read exactly the planned pages; the flash path charges exactly these
// pages.

#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/codec/page_codec.hpp"
#include "instinfer/core/index_set.hpp"
#include "instinfer/core/page_key.hpp"
#include "instinfer/core/traffic.hpp"

namespace instinfer {

// Where the entries of a read are. flash: in the flash array. fast: a copy in fast memory next to
// the attention units (for example, a window on the GPU). cached: a page cache in that memory. fast
// and cached cost no flash read. The values are the same in all three.
enum class residence : std::uint8_t { flash, fast, cached };

// One page and the entries wanted from it: the elements (t, i) with t in `tokens` and i in `dims`.
// Both are local to the page's tile, and are slices of the plan's run pool.
struct page_read {
  struct run_slice {
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
    std::uint32_t count = 0;  // indices in the slice's runs
  };

  stream kind = stream::k_by_token;
  std::uint32_t token_tile = 0;
  std::uint32_t dim_tile = 0;
  page_id page = no_page;
  bool buffered = false;  // the page is still in the group buffer in DRAM and costs no flash read
  residence from = residence::flash;
  // A read of V: what the read before it, of K of the same tokens, has read already.
  sharing shares = sharing::nothing;
  run_slice tokens;
  run_slice dims;

  std::uint64_t wanted_elements() const { return std::uint64_t{tokens.count} * dims.count; }
  bool costs_flash() const {
    return !buffered && from == residence::flash && shares == sharing::nothing;
  }
  // The wanted elements that no read before it has read.
  std::uint64_t new_elements() const { return shares == sharing::entries ? 0 : wanted_elements(); }
};

class access_plan {
 public:
  std::span<const page_read> reads() const { return reads_; }
  index_view tokens(const page_read& read) const { return view(read.tokens); }
  index_view dims(const page_read& read) const { return view(read.dims); }

  // Keeps the memory: refilling a plan allocates only if it becomes larger than before.
  void clear() {
    reads_.clear();
    runs_.clear();
    pages_ = 0;
    wanted_elements_ = 0;
    buffered_elements_ = 0;
    fast_elements_ = 0;
  }

  // Starts a slice of the run pool. add_run() fills it.
  page_read::run_slice begin_slice() const {
    const auto at = static_cast<std::uint32_t>(runs_.size());
    return {at, at, 0};
  }
  void add_run(page_read::run_slice& slice, std::uint32_t first, std::uint32_t last) {
    runs_.push_back({first, last});
    slice.end = static_cast<std::uint32_t>(runs_.size());
    slice.count += last - first;
  }

  // Always inline: a dense plan adds one read per 16 tokens. A call would spill the registers of
  // the loop around it, and cost 7 ns a page instead of 5. Reading the page takes 130 ns.
  [[gnu::always_inline]] void add(const page_read& read) {
    reads_.push_back(read);
    pages_ += read.costs_flash() ? 1u : 0u;
    (read.from != residence::flash ? fast_elements_
     : read.buffered               ? buffered_elements_
                                   : wanted_elements_) += read.new_elements();
  }

  // Wanted elements of all reads.
  std::uint64_t elements() const { return wanted_elements_ + buffered_elements_ + fast_elements_; }

  // Bytes of the stages that do not depend on the route. link_bytes stays 0; filtered_bytes counts
  // the wanted entries.
  traffic bytes(std::uint64_t page_bytes, const entry_size& entry) const {
    std::uint64_t scaled_dims = 0;
    if (entry.dim_bytes > 0) {
      for (const page_read& read : reads_) {
        scaled_dims += read.kind == stream::k_by_token && read.costs_flash() ? read.dims.count : 0;
      }
    }
    return {
        .pages_read = pages_,
        .array_bytes = pages_ * page_bytes,
        .channel_bytes = pages_ * page_bytes,
        .filtered_bytes = entry.sealed(wanted_elements_, pages_) + scaled_dims * entry.dim_bytes,
        .buffer_bytes = entry.open(buffered_elements_),
        .fast_bytes = entry.sealed(fast_elements_, 0)};
  }

 private:
  index_view view(const page_read::run_slice& slice) const {
    return {std::span(runs_).subspan(slice.begin, slice.end - slice.begin), slice.count};
  }

  std::vector<page_read> reads_;
  std::vector<index_run> runs_;
  std::uint64_t pages_ = 0;              // pages read from flash
  std::uint64_t wanted_elements_ = 0;    // wanted elements of these pages
  std::uint64_t buffered_elements_ = 0;  // wanted elements of pages in the group buffer
  std::uint64_t fast_elements_ = 0;      // wanted elements of copies in fast memory
};

}  // namespace instinfer
