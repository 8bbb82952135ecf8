#pragma once
// What a processor decides about the kernels of the CPU path: one value, which engines take as a
// template argument.

#include <algorithm>
#include <cstdint>

#include "instinfer/cpu/head_blocks-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// How far ahead of a kernel rows are prefetched: `bytes` or `rows`, whichever is farther.
struct prefetch_distance {
  std::uint32_t bytes = 0;
  std::uint32_t rows = 0;

  constexpr std::uint32_t in_rows(std::uint32_t row_bytes) const {
    return std::max({bytes / row_bytes, rows, 1u});
  }
};

// The prefetch of rows that lie at even distances in memory.
struct row_prefetch {
  prefetch_distance k{};
  prefetch_distance v{};
  cache_level to = cache_level::l2;
};

// The kernels that fold rows of K and V. Results do not depend on it beyond rounding.
// Measured defaults; ./dev bench tune measures them on another machine:
//   one_head    1 KiB, and at least 4 rows. Zen 4, fp16 with head size 128: 0.5 to 1 KiB are best,
//               2 KiB lose a third; fp32: 2 KiB. Zen 5: 4 KiB to L1 is best for fp16 (0.82 of the
//               read bandwidth, against 0.65), and loses on fp32.
//   group       16 rows, because the kernel of a group spends more time per row (Zen 4, 4 heads:
//               30 ns a token, against 34 with 1 KiB).
//   scattered   L2: a prefetch to L1 occupies one of its few miss buffers until the line arrives
//               (Zen 4: rows of 256 bytes then take 29 ns each instead of 19).
//   block_rows  prefetchers drop a stream that pauses too long, so blocks alternate between K and
//               V every 16 rows (0.96 of the read bandwidth; with blocks of 64 rows: 0.86). 16 rows
//               of fp16 are also a page of 4 KiB.
//   matrix_heads
//               smaller groups leave more of a tile empty than tiles gain: 8 heads of 128 dims take
//               1.2 times as long as by rows, 16 take 0.86; 16 heads over latent rows 0.6, 128 of
//               those 0.3 (Intel Xeon, AMX).
//   by_turns    36.8 → 40.1 GB/s (Zen 5, fp16).
struct tuning {
  row_prefetch one_head{.k = {1024, 4}, .v = {1024, 4}};  // one query head for each KV head
  row_prefetch group{.k = {0, 16}, .v = {0, 16}};         // several
  cache_level scattered = cache_level::l2;                // rows without an even distance
  std::uint32_t block_rows = 16;                          // of K, then of V
  std::uint32_t heads = heads_at_once;                    // most query heads of a register tile
  std::uint32_t matrix_heads = 16;  // fewest of a group that are folded by matrix tiles, of bf16
  bool by_turns = true;  // one head: a row of K, then one of V, where both sums fit in registers

  // Whether kernels can be compiled with it.
  constexpr bool valid() const {
    const bool rows = block_rows == 16 || block_rows == 32 || block_rows == 64;
    const bool tile = std::has_single_bit(heads) && heads <= heads_at_once;
    return rows && tile && within_reach(one_head) && within_reach(group);
  }

 private:
  // Plans of drives are read as far ahead.
  static constexpr bool within_reach(const row_prefetch& p) {
    return std::max(p.k.bytes, p.v.bytes) <= 65536 && std::max(p.k.rows, p.v.rows) <= 256;
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
