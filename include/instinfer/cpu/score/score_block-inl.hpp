#pragma once
// Scores of rows that lie anywhere, in their storage's own width: summaries and index keys.

#include <algorithm>
#include <cstdint>

#include "instinfer/core/index_set.hpp"
#include "instinfer/cpu/fold/row_kernels-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Rows are scored in blocks of so many: each fills whole register tiles for any number of heads.
inline constexpr std::uint32_t score_rows_at_once = 16;
static_assert(score_rows_at_once % lanes == 0);

// to[h * stride + t] = q_h . rows[t] / load_factor for t < count and the heads of q [group, Dims].
// rows has score_rows_at_once pointers; those from `count` on may repeat others.
template <std::uint32_t Dims, class Packed>
HWY_NOINLINE void score_block(const Packed* const* rows, std::uint32_t count, const float* q,
                              std::uint32_t group, float* to, std::size_t stride) {
  for_head_blocks(group, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
    constexpr std::uint32_t tile_rows = lanes / slots<Heads>;
    for (std::uint32_t t = 0; t < count; t += tile_rows) {
      float tile[lanes];
      hn::StoreU(score_rows<Heads, Dims>(rows + t, q + h * Dims, rows_ahead<Packed>{}), float_tag{},
                 tile);
      for (std::uint32_t j = 0; j < std::min(tile_rows, count - t); ++j) {
        for (std::uint32_t head = 0; head < Heads; ++head) {
          to[(h + head) * stride + t + j] = tile[j * slots<Heads> + head];
        }
      }
    }
  });
}

// Rows of a set mostly follow one another in memory. So many bytes ahead, 30 rows of index keys, a
// row is prefetched, whether it is in the set or not.
inline constexpr std::uintptr_t scores_ahead_bytes = 4096;

// Scores the rows of a set in blocks. row_of(member, i) is row i of a block. The scores of a block
// that begins with member number n of the set go to to(n), as above; then scored(n, count) is
// called.
template <std::uint32_t Dims, class Packed, class To, class RowOf, class Scored>
void score_set(index_view set, const float* q, std::uint32_t group, To&& to, std::size_t stride,
               RowOf&& row_of, Scored&& scored) {
  const Packed* rows[score_rows_at_once];
  std::uint32_t count = 0;
  std::size_t done = 0;
  const auto flush = [&] {
    std::fill(rows + count, rows + score_rows_at_once, rows[0]);
    score_block<Dims>(rows, count, q, group, to(done), stride);
    scored(done, count);
    done += count;
    count = 0;
  };
  set.for_each([&](std::uint32_t member) {
    rows[count] = row_of(member, count);
    const auto at = reinterpret_cast<std::uintptr_t>(rows[count]);
    prefetch(reinterpret_cast<const void*>(at + scores_ahead_bytes), row_bytes<Dims, Packed>);
    if (++count == score_rows_at_once) {
      flush();
    }
  });
  if (count > 0) {
    flush();
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
