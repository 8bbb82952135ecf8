#pragma once
// SIMD basics of the CPU path on Highway: vector tags, loads of storage elements as fp32, the compiled target's name.
// Dispatch is static: the target is what the including translation unit's flags allow, and everything here lives in
// Highway's per-target namespace, so units built with different flags keep to the one-definition rule.

#if !defined(HWY_COMPILE_ONLY_STATIC) && !defined(HWY_HIGHWAY_INCLUDED)
#define HWY_COMPILE_ONLY_STATIC  // Highway 1.0.3 rejects some -march=native targets otherwise
#endif
#include <hwy/highway.h>

#include <cstdint>

#include "instinfer/core/element.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// At most 16 lanes: head sizes are multiples of 16, so no kernel over dims has a tail.
using float_tag = hn::CappedTag<float, 16>;
using float_vec = hn::Vec<float_tag>;

inline std::size_t lanes() { return hn::Lanes(float_tag{}); }

// The target that this unit was compiled for, e.g. "AVX3_DL", "AVX2", "SSE2", "NEON".
inline const char* target_name() { return hwy::TargetName(HWY_STATIC_TARGET); }

// lanes() consecutive elements as fp32; no alignment needed.
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

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
