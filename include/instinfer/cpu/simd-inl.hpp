#pragma once
// SIMD basics of the CPU path on Highway: vector tags, loads of storage elements as fp32, sums, the
// name of the target.
// Dispatch is static: the flags of the including translation unit select the target. Everything in
// cpu/ is in Highway's per-target namespace, so kernels of translation units with different flags
// do not mix. The rest of the library is plain inline code, as are the standard containers: units
// share it by name, and the linker keeps the first definition. So a program for older processors
// compiles all its other units for those, and links them before the units for newer ones.

#if defined(HWY_TARGET_INCLUDE)
#error \
    "instinfer: cpu.hpp dispatches statically; include it from a unit of its own for each target, not by foreach_target.h"
#endif
#if !defined(HWY_COMPILE_ONLY_STATIC) && !defined(HWY_HIGHWAY_INCLUDED)
#define HWY_COMPILE_ONLY_STATIC  // Highway 1.0.3 rejects some -march=native targets otherwise
#endif
#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

#include "instinfer/codec/element.hpp"

#if HWY_HAVE_SCALABLE && (__ARM_FEATURE_SVE_BITS != 128 && __ARM_FEATURE_SVE_BITS != 256 && \
                          __ARM_FEATURE_SVE_BITS != 512)
#error \
    "instinfer: kernels keep arrays of vectors, so SVE needs a known length: compile with -msve-vector-bits=128, 256 or 512, whichever the processor has"
#endif

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using float_tag = hn::ScalableTag<float>;
using float_vec = hn::Vec<float_tag>;

// A float_vec that can be an array element. SVE's own type has no fixed size; this one has the size
// given to the compiler. Each type converts to the other.
#if HWY_HAVE_SCALABLE
typedef float_vec stored_vec __attribute__((arm_sve_vector_bits(__ARM_FEATURE_SVE_BITS)));
#else
using stored_vec = float_vec;
#endif

inline constexpr std::uint32_t lanes = sizeof(stored_vec) / sizeof(float);
// head sizes are multiples of 16, so kernels over dims have no remainder
static_assert(lanes <= 16);

// Vectors that a kernel may keep in registers in addition to its operands. AVX-512 and Arm have 32
// registers, others 16.
inline constexpr std::uint32_t register_budget = lanes == 16 || HWY_ARCH_ARM ? 16 : 8;

// The target of this translation unit, e.g. "AVX3_DL", "AVX2", "NEON"; without flags "EMU128" or
// "SCALAR".
inline const char* target_name() { return hwy::TargetName(HWY_TARGET); }

// `lanes` consecutive elements as fp32, without alignment.
HWY_INLINE float_vec load(const fp32* p) { return hn::LoadU(float_tag{}, p); }
HWY_INLINE float_vec load(const fp16* p) {
  const hn::Rebind<std::uint16_t, float_tag> bits;
  const hn::Rebind<hwy::float16_t, float_tag> half;
  return hn::PromoteTo(float_tag{}, hn::BitCast(half, hn::LoadU(bits, &p->bits)));
}
HWY_INLINE float_vec load(const bf16* p) {
  const hn::Rebind<std::uint16_t, float_tag> bits;
  const hn::Rebind<std::uint32_t, float_tag> wide;
  return hn::BitCast(float_tag{},
                     hn::ShiftLeft<16>(hn::PromoteTo(wide, hn::LoadU(bits, &p->bits))));
}

HWY_INLINE float sum(float_vec v) { return hn::GetLane(hn::SumOfLanes(float_tag{}, v)); }

// Lane i of the result is the sum over the lanes of v[i]. It uses a tree of pairwise sums: 2
// shuffles and 1 add per vector, while a horizontal sum of each vector takes log2(lanes) of both.
// Shuffles within 128 bits come first: they take 1 cycle, wider ones 3. Overwrites v.
HWY_INLINE float_vec sum_each(stored_vec (&v)[lanes]) {
#if HWY_TARGET != HWY_SCALAR
  const float_tag f;
  const hn::Repartition<double, float_tag> pairs;
  // In each 128 bits: a0 + a2, b0 + b2, a1 + a3, b1 + b3.
  HWY_UNROLL(8)
  for (std::uint32_t i = 0; i < lanes / 2; ++i) {
    const float_vec a = v[2 * i];
    const float_vec b = v[2 * i + 1];
    v[i] = hn::Add(hn::InterleaveLower(f, a, b), hn::InterleaveUpper(f, a, b));
  }
  HWY_UNROLL(8)
  for (std::uint32_t i = 0; i < lanes / 4; ++i) {  // a, b, c, d
    const auto ab = hn::BitCast(pairs, v[2 * i]);
    const auto cd = hn::BitCast(pairs, v[2 * i + 1]);
    v[i] = hn::Add(hn::BitCast(f, hn::InterleaveLower(pairs, ab, cd)),
                   hn::BitCast(f, hn::InterleaveUpper(pairs, ab, cd)));
  }
  if constexpr (lanes >= 8) {
    HWY_UNROLL(2)
    for (std::uint32_t i = 0; i < lanes / 8; ++i) {  // blocks of 128 bits: p0 + p1, q0 + q1, ...
      const float_vec p = v[2 * i];
      const float_vec q = v[2 * i + 1];
      v[i] = hn::Add(hn::OddEvenBlocks(q, p), hn::SwapAdjacentBlocks(hn::OddEvenBlocks(p, q)));
    }
  }
  if constexpr (lanes >= 16) {
    const float_vec p = v[0];
    const float_vec q = v[1];
    v[0] = hn::Add(hn::ConcatLowerLower(f, q, p), hn::ConcatUpperUpper(f, q, p));
  }
#endif
  return v[0];
}

// Where a prefetch brings lines; none: there is no prefetch.
enum class cache_level : std::uint8_t { none, l1, l2, l3 };

// Prefetches the cache line of p. To L2 if nothing else is measured: a prefetch to L1 occupies one
// of its few miss buffers until the line arrives.
template <cache_level To = cache_level::l2>
HWY_INLINE void prefetch([[maybe_unused]] const void* p) {
  if constexpr (To != cache_level::none) {
    __builtin_prefetch(p, 0, 4 - static_cast<int>(To));
  }
}

// The same for all lines of the `bytes` bytes from p on.
inline constexpr std::uint32_t line_bytes = 64;
template <cache_level To = cache_level::l2>
HWY_INLINE void prefetch(const void* p, std::size_t bytes) {
  for (std::size_t at = 0; at < bytes; at += line_bytes) {
    prefetch<To>(static_cast<const std::byte*>(p) + at);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
