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

// The kernels that fold rows of K and V. Results do not depend on it beyond rounding, which is that
// of fp32 unless matrix_parts says less. Defaults are measured, with fp16 and head size 128 if
// nothing else is said; ./dev bench tune measures a machine.
struct tuning {
  // One query head for each KV head. Zen 4: 0.5 to 1 KiB are best, 2 KiB lose a third; fp32: 2 KiB.
  // An Intel Xeon: 2 KiB to L1 gain 7 %, 8 KiB lose 9 to 11 %. Zen 5: 4 KiB to L1 gain a quarter,
  // but lose with fp32.
  row_prefetch one_head{.k = {1024, 4}, .v = {1024, 4}};
  // More query heads, whose kernel spends more time a row. Zen 4, 4 heads: 30 ns a token, against
  // 34 with 1 KiB. Intel Xeon: farther ones lose 2 to 16 %.
  row_prefetch group{.k = {0, 16}, .v = {0, 16}};
  // Rows without an even distance. A prefetch to L1 occupies one of its few miss buffers until the
  // line arrives: on Zen 4, rows of 256 bytes then take 29 ns each instead of 19.
  cache_level scattered = cache_level::l2;
  // Rows of K, then of V. Prefetchers drop a stream that pauses too long: 16 rows, which are also a
  // page of 4 KiB, reach 0.96 of the read bandwidth, 64 rows 0.86. 32 rows lose up to 17 % with
  // groups (Intel Xeon).
  std::uint32_t block_rows = 16;
  // Most query heads of a register tile; its rows are what lanes are left. Tiles of 4 make groups
  // of 8 slower by 8 % (Intel Xeon).
  std::uint32_t heads = heads_at_once;
  // The least group that folds rows of bf16, or of codes that bf16 has room for, by matrix tiles.
  // Smaller ones leave more of a tile empty than tiles gain: 8 heads of 128 dims in bf16 take 1.3
  // times as long, 12 take 0.98 (int8 0.75), 16 heads over latent rows 0.5 and 128 of those 0.3
  // (Intel Xeon, AMX).
  std::uint32_t matrix_heads = 12;
  // Values of bf16 that a float of q, and a weight, becomes in matrix tiles. 3 have all its bits,
  // and the error is that of other kernels; 2 give 5e-6, and 1 gives 2e-3, as PyTorch in bf16. 128
  // heads over latent rows take 22, 18 and 14 ms (Intel Xeon, AMX).
  std::uint32_t matrix_parts = 3;
  // One query head: a row of K, then one of V, where the sums of both fit in registers. Gains 5 %
  // on the Intel Xeon, 9 % on Zen 5.
  bool by_turns = true;

  // Whether kernels can be compiled with it.
  constexpr bool valid() const {
    const bool rows = block_rows == 16 || block_rows == 32 || block_rows == 64;
    const bool tile = std::has_single_bit(heads) && heads <= heads_at_once;
    return rows && tile && matrix_parts >= 1 && matrix_parts <= 3 && within_reach(one_head) &&
           within_reach(group);
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
