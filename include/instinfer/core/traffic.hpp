#pragma once
// Traffic counters: the bytes that an access moves at each stage, from the flash array to the link.

#include <cstdint>

namespace instinfer {

// Bytes by stage, in the order of the data flow. One page read counts page_bytes in the array and
// on the channel. The filter of the channel controller then passes only wanted entries. The link
// counts what crosses PCIe in either direction.
struct traffic {
  std::uint64_t pages_read = 0;
  std::uint64_t pages_written = 0;
  std::uint64_t array_bytes = 0;     // read from the flash arrays
  std::uint64_t channel_bytes = 0;   // over the flash channels
  std::uint64_t filtered_bytes = 0;  // wanted entries that the filter passes
  // Wanted entries read from the group buffer in DRAM, not from flash.
  std::uint64_t buffer_bytes = 0;
  std::uint64_t written_bytes = 0;  // programmed into flash
  std::uint64_t link_bytes = 0;     // over the link between drive and GPU
  std::uint64_t fast_bytes = 0;     // wanted entries that a policy keeps in fast memory
  std::uint64_t summary_bytes = 0;  // scored or folded rows of summaries

  // Of K and V, wherever they lie: what the queries use of them. On routes to a host or a GPU the
  // filter passes whole pages, and so do these.
  constexpr std::uint64_t wanted_bytes() const {
    return filtered_bytes + buffer_bytes + fast_bytes;
  }

  friend constexpr bool operator==(const traffic&, const traffic&) = default;

  constexpr traffic& operator+=(const traffic& t) {
    pages_read += t.pages_read;
    pages_written += t.pages_written;
    array_bytes += t.array_bytes;
    channel_bytes += t.channel_bytes;
    filtered_bytes += t.filtered_bytes;
    buffer_bytes += t.buffer_bytes;
    written_bytes += t.written_bytes;
    link_bytes += t.link_bytes;
    fast_bytes += t.fast_bytes;
    summary_bytes += t.summary_bytes;
    return *this;
  }
  friend constexpr traffic operator+(traffic a, const traffic& b) { return a += b; }
};

}  // namespace instinfer
