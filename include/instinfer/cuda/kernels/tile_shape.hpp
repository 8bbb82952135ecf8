#pragma once
// How the attention kernel cuts its work: tiles, stages, shared memory, and the numbers behind
// them.
//
// The numbers are for head size 128 in 16 bits on an H100 (132 SMs, 3.35 TB/s, 1.755 GHz). K and V
// of a token are 512 B, due every 35 clocks on each SM. At about 0.8 us of latency under load (an
// estimate), 3.35 TB/s need 2.7 MB in flight, 20 KB an SM.
//   - A warp is its own pipeline: 16 tokens a tile, 8 KB, in 3 stages of 16-byte cp.async. It has
//     no barrier but the warp's. Two tiles are in flight while one is computed: 4 warps x 2 CTAs x
//     16 KB = 128 KB an SM.
//   - Shared memory: 96 KB of stages + 4 KB of q = 100 KB a CTA. Two CTAs fit an SM of 228 KB. One
//     fits an A100's SM of 164 KB, with 64 KB in flight.
//   - S = Q K^T and O += P V use mma.m16n8k16 with heads on M = 16. One code path serves groups 1
//     to 16, and K and V leave shared memory once for all heads. A tile takes 32 mma and 16
//     ldmatrix.x4: 64 + 64 of the 560 clocks that its bytes take.
//   - Heads on M, not tokens, cost small groups twice the mma of the transposed form. A tile does
//     not wait for these mma. In exchange, P goes from accumulators to operands without a shuffle.
//   - K and V rows in shared memory are swizzled by 16-byte words (word ^ row % 8), so that
//     ldmatrix and cp.async have no bank conflicts.

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

// Rows of `Dim` values in shared memory, in 16-byte words. They are placed so that ldmatrix and
// the copies have no bank conflicts: words c of eight rows lie in different 16 bytes modulo 128. A
// swizzle does this, or a padding that makes the pitch an odd number of words.
template <class T, std::uint32_t Dim, std::uint32_t Padding = 0>
struct row_layout {
  static constexpr std::uint32_t bytes = Dim * sizeof(T);
  static constexpr std::uint32_t pitch = bytes + Padding;
  static constexpr std::uint32_t words = bytes / 16;
  static_assert(Padding == 0 || pitch / 16 % 2 == 1);

  static constexpr std::uint32_t key(std::uint32_t r) {
    return Padding > 0 ? 0 : words >= 8 ? r & 7 : r >> 1 & 3;
  }
  // Byte offset of word c of row r.
  static constexpr std::uint32_t offset(std::uint32_t r, std::uint32_t c) {
    return r * pitch + ((c ^ key(r)) * 16);
  }
  // The same for word even + odd, odd 0 or 1. In this form, a loop over constant values of `even`
  // needs only four values that are computed at run time.
  static constexpr std::uint32_t offset(std::uint32_t r, std::uint32_t even, std::uint32_t odd) {
    return r * pitch + even / 8 * 128 + (((odd ^ key(r)) ^ (even % 8)) * 16);
  }
};

// E: the type of q, and of what the tensor cores multiply. Code: what pages hold, E or 8-bit codes.
// Copies: how tiles get to shared memory.
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
  // For codes: the scales of K of 16 tokens, then those of V.
  static constexpr std::uint32_t scales_bytes = is_coded<Code> ? 2 * tile_tokens * 4 : 0;
  static constexpr std::uint32_t stage_bytes = 2 * tile_bytes + scales_bytes;
  // Head size 64: 64 KB of stages a CTA, 3 CTAs an SM. 128: 96 KB, 2 CTAs. 256: 128 KB, 1 CTA, with
  // 64 KB in flight. Codes are half as long, so they have twice as many stages.
  static constexpr std::uint32_t stages = (Dim == 64 ? 4 : Dim == 128 ? 3 : 2) * 2 / sizeof(Code);
  static constexpr std::uint32_t ctas_per_sm = Dim == 64 ? 3 : Dim == 128 ? 2 : 1;
  static constexpr std::uint32_t warp_bytes = stages * stage_bytes;
  static constexpr std::uint32_t q_at = warps_per_cta * warp_bytes;
  static constexpr std::uint32_t barriers_at = q_at + largest_group * q_row::bytes;
  static constexpr std::uint32_t shared_bytes =
      barriers_at + warps_per_cta * stages * Copies::stage_barrier_bytes;
  // The merge of the warps reuses the stages: [warps, 16, 2] of max and sum, then [warps, 16, Dim +
  // 8] outputs. 8 floats of padding put the rows of a fragment on distinct banks.
  static constexpr std::uint32_t merge_row = Dim + 8;
  static_assert(warps_per_cta * largest_group * (2 + merge_row) * sizeof(float) <= q_at);
  static_assert(cta_threads * sizeof(std::uint64_t) <= q_at);
  // The merge of parts also reuses them: a flag of 16 bytes, the heads' sums, and the weights of
  // all parts. Under the balanced rule, a CTA has at most one piece of an item; no device runs more
  // than 512 CTAs at once.
  static_assert(16 + (largest_group + most_part_weights) * sizeof(float) <= q_at);
  static_assert(512 * largest_group <= most_part_weights);
};

}  // namespace instinfer::cuda
