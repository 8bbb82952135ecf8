#pragma once
// How the attention kernel cuts its work: tiles, stages, shared memory, and the numbers behind.
//
// Numbers for head size 128 in 16 bits on an H100 (132 SMs, 3.35 TB/s, 1.755 GHz): a token's K and V are 512 B, due every 35
// clocks on each SM. To keep 3.35 TB/s over about 0.8 us of loaded latency (estimate), 2.7 MB must be in flight, 20 KB an SM.
//   - A warp is its own pipeline: 16 tokens a tile, 8 KB, 3 stages of 16-byte cp.async, no barrier but the warp's. Two tiles
//     are in flight while one is computed: 4 warps x 2 CTAs x 16 KB = 128 KB an SM.
//   - Shared memory: 96 KB of stages + 4 KB of q = 100 KB a CTA, two an SM (228 KB; A100, 164 KB: one, 64 KB in flight).
//   - S = Q K^T and O += P V by mma.m16n8k16, heads on M = 16: one code path for groups 1 to 16, K and V leave shared memory
//     once for all heads. 32 mma and 16 ldmatrix.x4 a tile: 64 + 64 of the 560 clocks that its bytes take.
//   - Heads on M, not tokens, costs twice the mma of the transposed form for small groups, which is not what the tile waits
//     for, and lets P go from accumulators to operands without a shuffle.
//   - K and V rows in shared memory are swizzled by 16-byte chunks (chunk ^ row % 8): ldmatrix and cp.async are free of bank
//     conflicts.

#include <concepts>
#include <cstddef>
#include <cstdint>

#include "instinfer/cuda/kernels/page_codes.hpp"
#include "instinfer/cuda/launch/attend_arguments.hpp"

namespace instinfer::cuda {

inline constexpr std::uint32_t warps_per_cta = 4;
inline constexpr std::uint32_t cta_threads = 32 * warps_per_cta;
inline constexpr std::uint32_t tile_tokens = 16;  // of a warp: the K of mma.m16n8k16 in O += P V
inline constexpr float log2_e = 1.4426950408889634f;
inline constexpr float ln_2 = 0.6931471805599453f;

struct lane_copies;  // cuda/kernels/lane_copies.hpp

// Rows of `Dim` values in shared memory, in 16-byte chunks, placed so that neither ldmatrix nor the copies meet bank conflicts:
// eight rows' chunks c lie in different sixteen bytes modulo 128. By a swizzle, or by padding of an odd number of chunks.
template <class T, std::uint32_t Dim, std::uint32_t Padding = 0>
struct row_layout {
  static constexpr std::uint32_t bytes = Dim * sizeof(T);
  static constexpr std::uint32_t pitch = bytes + Padding;
  static constexpr std::uint32_t chunks = bytes / 16;
  static_assert(Padding == 0 || pitch / 16 % 2 == 1);

  static constexpr std::uint32_t key(std::uint32_t r) {
    return Padding > 0 ? 0 : chunks >= 8 ? r & 7 : r >> 1 & 3;
  }
  // Byte offset of chunk c of row r.
  static constexpr std::uint32_t offset(std::uint32_t r, std::uint32_t c) {
    return r * pitch + ((c ^ key(r)) * 16);
  }
  // The same for chunk even + odd, odd 0 or 1, in a form of which all but four values are constants where `even` is one.
  static constexpr std::uint32_t offset(std::uint32_t r, std::uint32_t even, std::uint32_t odd) {
    return r * pitch + even / 8 * 128 + (((odd ^ key(r)) ^ (even % 8)) * 16);
  }
};

// E: what q is and the tensor cores multiply; Code: what pages hold, E or 8-bit codes; Copies: how tiles get to shared memory.
template <class E, std::uint32_t Dim, class Code = E, class Copies = lane_copies>
struct tile_shape {
  static_assert(
      Dim == 64 || Dim == 128 || Dim == 256,
      "instinfer: the CUDA path has kernels for head sizes 64, 128 and 256, see cuda/kernels/attend_kernel.hpp");
  static_assert(
      sizeof(E) == 2 && (std::same_as<Code, E> || (is_coded<Code> && std::same_as<E, fp16>)),
      "instinfer: the CUDA path stores K and V as fp16 or bf16, or as int8 or fp8 beside a query in fp16, see cuda/kernels/page_codes.hpp");
  using row = row_layout<Code, Dim, Copies::row_padding>;
  using q_row = row_layout<E, Dim>;
  static constexpr std::uint32_t tile_bytes = tile_tokens * row::pitch;  // of one stream
  // Of codes: the scales of 16 tokens of K, then of V.
  static constexpr std::uint32_t scales_bytes = is_coded<Code> ? 2 * tile_tokens * 4 : 0;
  static constexpr std::uint32_t stage_bytes = 2 * tile_bytes + scales_bytes;
  // Head size 64: 64 KB of stages, 3 CTAs an SM; 128: 96 KB, 2; 256: 128 KB, 1, of which 64 KB are in flight. Twice as many of
  // codes, which are half as long.
  static constexpr std::uint32_t stages = (Dim == 64 ? 4 : Dim == 128 ? 3 : 2) * 2 / sizeof(Code);
  static constexpr std::uint32_t ctas_per_sm = Dim == 64 ? 3 : Dim == 128 ? 2 : 1;
  static constexpr std::uint32_t warp_bytes = stages * stage_bytes;
  static constexpr std::uint32_t q_at = warps_per_cta * warp_bytes;
  static constexpr std::uint32_t barriers_at = q_at + largest_group * q_row::bytes;
  static constexpr std::uint32_t shared_bytes =
      barriers_at + warps_per_cta * stages * Copies::stage_barrier_bytes;
  // Merging the warps reuses the stages: [warps, 16, 2] of max and sum, then [warps, 16, Dim + 8] outputs; 8 floats of padding
  // put the rows of a fragment on distinct banks.
  static constexpr std::uint32_t merge_row = Dim + 8;
  static_assert(warps_per_cta * largest_group * (2 + merge_row) * sizeof(float) <= q_at);
  static_assert(cta_threads * sizeof(std::uint64_t) <= q_at);
  // A flag of 16 bytes, the heads' sums, and the weights of all parts. Balanced pieces of an item are at most one a CTA, of
  // which no device runs more than 512 at once.
  static_assert(16 + (largest_group + most_part_weights) * sizeof(float) <= q_at);
  static_assert(512 * largest_group <= most_part_weights);
};

}  // namespace instinfer::cuda
