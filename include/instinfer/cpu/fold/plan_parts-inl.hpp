#pragma once
// Divides a plan into parts for one kernel or one worker.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/cpu/simd-inl.hpp"
#include "instinfer/layout/concepts.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Whether read i begins a new tile of tokens. All pages of a tile are folded or scored together:
// first K pages, then V pages.
inline bool begins_tile(std::span<const page_read> reads, std::size_t i) {
  return i == 0 ||
         (reads[i].kind != stream::v_by_token && (reads[i].token_tile != reads[i - 1].token_tile ||
                                                  reads[i - 1].kind == stream::v_by_token));
}

// Elements that reads [first, last) of a plan want; those that K and V share count once.
inline std::uint64_t wanted_elements(const access_plan& plan, std::size_t first, std::size_t last) {
  if (first == 0 && last == plan.reads().size()) {
    return plan.elements();
  }
  std::uint64_t all = 0;
  for (const page_read& read : plan.reads().subspan(first, last - first)) {
    all += read.new_elements();
  }
  return all;
}

// Cuts reads [first, last) of a plan into parts. Part p is reads [cuts[p], cuts[p + 1]); parts may
// be empty.
inline void cut_plan(const access_plan& plan, std::size_t first, std::size_t last,
                     std::uint32_t parts, std::vector<std::size_t>& cuts) {
  const std::span<const page_read> reads = plan.reads().first(last);
  const std::uint64_t all = wanted_elements(plan, first, last);
  cuts.assign(1, first);
  std::uint64_t before = 0;
  for (std::size_t i = first; i < last; ++i) {
    while (cuts.size() < parts && before * parts >= all * cuts.size() && begins_tile(reads, i)) {
      cuts.push_back(i);
    }
    before += reads[i].new_elements();
  }
  cuts.resize(std::size_t{parts} + 1, last);
}

// The end of the tile that begins with read i.
inline std::size_t end_of_tile(std::span<const page_read> reads, std::size_t i) {
  for (++i; i < reads.size() && !begins_tile(reads, i); ++i) {
  }
  return i;
}

// The most reads that a fold by rows uses at once, of reads [first, last): from a tile on to the
// last one that is asked for before `rows` rows after that tile are folded. A scale is asked for
// one tile earlier.
inline std::size_t reads_in_use(const access_plan& plan, std::size_t first, std::size_t last,
                                std::size_t rows) {
  const std::span<const page_read> reads = plan.reads().first(last);
  std::size_t most = 1;
  std::size_t oldest = first;                                             // the oldest tile in use
  std::size_t oldest_end = first < last ? reads[first].tokens.count : 0;  // its end, in rows
  std::size_t row = 0;
  std::size_t row_before = 0;
  for (std::size_t tile = first; tile < last;) {
    const std::size_t end = end_of_tile(reads, tile);
    while (oldest_end + rows <= row_before) {
      oldest = end_of_tile(reads, oldest);
      oldest_end += reads[oldest].tokens.count;
    }
    most = std::max(most, end - oldest);
    row_before = row;
    row += reads[tile].tokens.count;
    tile = end;
  }
  return most;
}

// The reads of two tiles, the largest ones of reads [first, last).
inline std::size_t reads_of_two_tiles(const access_plan& plan, std::size_t first,
                                      std::size_t last) {
  const std::span<const page_read> reads = plan.reads().first(last);
  std::size_t most = 1;
  for (std::size_t tile = first; tile < last;) {
    const std::size_t end = end_of_tile(reads, tile);
    most = std::max(most, end - tile);
    tile = end;
  }
  return 2 * most;
}

// Number of reads before the first page in the group buffer, which a codec has not encoded yet; all
// reads if pages are plain.
template <class Format>
std::size_t sealed_reads(const access_plan& plan) {
  const auto reads = plan.reads();
  if constexpr (Format::plain) {
    return reads.size();
  } else {
    return static_cast<std::size_t>(std::ranges::find_if(reads, &page_read::buffered) -
                                    reads.begin());
  }
}

// Whether kernels can use a tile's whole rows, or its columns: these must begin at a packed value.
template <class Format>
bool in_rows(const layout::tile& tile, std::uint32_t head_dim) {
  return tile.dim_stride == 1 && tile.dims == head_dim &&
         tile.token_stride % packed_elements<typename Format::packed> == 0 &&
         tile.origin % packed_elements<typename Format::packed> == 0;
}
template <class Format>
bool in_columns(const layout::tile& tile) {
  return tile.token_stride == 1 &&
         tile.dim_stride % packed_elements<typename Format::packed> == 0 &&
         tile.origin % packed_elements<typename Format::packed> == 0;
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
