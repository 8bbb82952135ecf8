#pragma once
// The counts of a drive's flash, from channels to the bytes of a page (InstInfer §IV-C); durations
// are in timing.hpp.

#include <cstdint>
#include <limits>
#include <string>

#include "instinfer/core/errors.hpp"

namespace instinfer::flash {

// Each count is per unit of the level above. A structural type: usable as a template argument and
// as a run-time value.
struct geometry {
  std::int32_t channels = 1;
  std::int32_t chips = 1;   // per channel: chip enables, also called ways
  std::int32_t dies = 1;    // per chip: work independently, share the chip's place on the bus
  std::int32_t planes = 1;  // per die: work together on one command (multi-plane)
  std::int32_t blocks = 1;  // per plane
  std::int32_t pages = 1;   // per block
  std::int32_t page_bytes = 4096;
  std::int32_t spare_bytes = 0;        // per page; they cross the bus with the page
  std::int32_t codeword_bytes = 4096;  // data bytes that one ECC codeword protects

  constexpr std::int32_t dies_per_channel() const { return chips * dies; }
  constexpr std::int32_t dies_total() const { return channels * dies_per_channel(); }
  constexpr std::int64_t pages_per_plane() const { return std::int64_t{blocks} * pages; }
  constexpr std::int64_t pages_per_channel() const {
    return pages_per_plane() * planes * dies_per_channel();
  }
  constexpr std::int64_t pages_total() const { return pages_per_channel() * channels; }
  constexpr std::int64_t blocks_total() const {
    return std::int64_t{blocks} * planes * dies_total();
  }
  constexpr std::int64_t bytes() const { return pages_total() * page_bytes; }
  // Bytes that the transfer of one page moves.
  constexpr std::int32_t bus_bytes() const { return page_bytes + spare_bytes; }
  constexpr std::int32_t codewords_per_page() const { return page_bytes / codeword_bytes; }

  friend constexpr bool operator==(const geometry&, const geometry&) = default;
};

// Far more than any real part has; it bounds the sums of command cycles.
inline constexpr std::int32_t max_planes = 64;

// The first rule that a geometry breaks.
enum class geometry_fault {
  none,
  channels,
  chips,
  dies,
  planes,
  blocks,
  pages,
  page_bytes,
  spare_bytes,
  codeword_bytes,
  dies_total,
  bytes
};

constexpr geometry_fault find_fault(const geometry& g) {
  using enum geometry_fault;
  if (g.channels < 1) return channels;
  if (g.chips < 1) return chips;
  if (g.dies < 1) return dies;
  if (g.planes < 1 || g.planes > max_planes) return planes;
  if (g.blocks < 1) return blocks;
  if (g.pages < 1) return pages;
  if (g.page_bytes < 1) return page_bytes;
  if (g.spare_bytes < 0 || g.spare_bytes > std::numeric_limits<std::int32_t>::max() - g.page_bytes)
    return spare_bytes;
  if (g.codeword_bytes < 1 || g.page_bytes % g.codeword_bytes != 0) return codeword_bytes;
  constexpr std::int64_t most_planes = std::numeric_limits<std::int32_t>::max();
  std::int64_t product = g.channels;
  for (const std::int32_t count : {g.chips, g.dies, g.planes}) {
    if (product > most_planes / count) return dies_total;
    product *= count;
  }
  for (const std::int32_t count : {g.blocks, g.pages, g.page_bytes}) {
    if (product > std::numeric_limits<std::int64_t>::max() / count) return bytes;
    product *= count;
  }
  return none;
}

// For static_assert.
constexpr bool valid(const geometry& g) { return find_fault(g) == geometry_fault::none; }

inline std::string to_string(const geometry& g) {
  return std::to_string(g.channels) + " channels x " + std::to_string(g.chips) + " chips x " +
         std::to_string(g.dies) + " dies x " + std::to_string(g.planes) + " planes x " +
         std::to_string(g.blocks) + " blocks x " + std::to_string(g.pages) + " pages";
}

// Throws bad_argument with the field, its value and its allowed range.
inline void validate(const geometry& g) {
  using enum geometry_fault;
  const auto below_one = [](const char* field, std::int32_t value) {
    return std::string("flash geometry: ") + field + " must be at least 1, got " +
           std::to_string(value);
  };
  switch (find_fault(g)) {
    case none:
      return;
    case channels:
      throw bad_argument(below_one("channels", g.channels));
    case chips:
      throw bad_argument(below_one("chips", g.chips));
    case dies:
      throw bad_argument(below_one("dies", g.dies));
    case planes:
      throw bad_argument("flash geometry: planes must lie in [1, " + std::to_string(max_planes) +
                         "], got " + std::to_string(g.planes));
    case blocks:
      throw bad_argument(below_one("blocks", g.blocks));
    case pages:
      throw bad_argument(below_one("pages", g.pages));
    case page_bytes:
      throw bad_argument(below_one("page_bytes", g.page_bytes));
    case spare_bytes:
      throw bad_argument(
          "flash geometry: spare_bytes must be at least 0 and page_bytes + spare_bytes below 2^31, "
          "got " +
          std::to_string(g.spare_bytes));
    case codeword_bytes:
      throw bad_argument("flash geometry: codeword_bytes must divide page_bytes (" +
                         std::to_string(g.page_bytes) + "), got " +
                         std::to_string(g.codeword_bytes));
    case dies_total:
      throw bad_argument(
          "flash geometry: channels x chips x dies x planes must stay below 2^31 planes");
    case bytes:
      throw bad_argument(
          "flash geometry: blocks, pages or page_bytes are too large, the drive must stay below "
          "2^63 bytes");
  }
}

}  // namespace instinfer::flash
