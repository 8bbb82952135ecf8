#pragma once
// Query heads of a group in blocks of a compile-time size: a block shares one pass over K and V and
// one conversion to fp32.

#include <bit>

#include "instinfer/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Most heads of a block. In large groups, 8 instead of 4 save a second conversion.
inline constexpr std::uint32_t heads_at_once = lanes == 16 ? 8 : lanes < 4 ? lanes : 4;

// Calls f.template operator()<Heads>(first_head) over `group` heads: in blocks of Most (a power of
// 2), then of 4, then the rest.
template <std::uint32_t Most = heads_at_once, class F>
HWY_INLINE void for_head_blocks(std::uint32_t group, F&& f) {
  std::uint32_t h = 0;
  for (; h + Most <= group; h += Most) {
    f.template operator()<Most>(h);
  }
  if constexpr (Most > 4) {
    if (group - h >= 4) {
      f.template operator()<4>(h);
      h += 4;
    }
  }
  switch (group - h) {
    case 1:
      f.template operator()<1>(h);
      break;
    case 2:
      f.template operator()<std::min(2u, Most)>(h);
      break;
    case 3:
      f.template operator()<std::min(3u, Most)>(h);
      break;
    default:
      break;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
