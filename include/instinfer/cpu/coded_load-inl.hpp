#pragma once
// Loads from sealed pages: fp32, fp16, bf16, and the codes of int8, fp8, 4-bit groups and
// DeepSeek's rows.

#include <algorithm>
#include <cstring>

#include "instinfer/codec/fp8_latent_rows.hpp"
#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Factor for the vectors of load_at, in addition to the page's scale. Kernels combine both into one
// factor.
template <class Packed>
inline constexpr float load_factor = 1.0f;
template <>
inline constexpr float load_factor<fp8> = 0x1p8f;

// Elements [i, i + lanes) of an array of packed values, as fp32. In a group, i is a multiple of
// lanes.
template <Element E>
HWY_INLINE float_vec load_at(const E* elements, std::size_t i) {
  return load(elements + i);
}

HWY_INLINE float_vec load_at(const std::int8_t* codes, std::size_t i) {
  const hn::Rebind<std::int8_t, float_tag> narrow;
  const hn::RebindToSigned<float_tag> wide;
  return hn::ConvertTo(float_tag{}, hn::PromoteTo(wide, hn::LoadU(narrow, codes + i)));
}

// The fields of an e4m3 moved into those of an fp16 give 2^-8 times its value, also for subnormals:
// the biases are 7 and 15. Pages contain no NaN.
HWY_INLINE float_vec load_at(const fp8* codes, std::size_t i) {
  const hn::Rebind<std::int8_t, float_tag> narrow;
  const hn::Rebind<std::int16_t, float_tag> wide;
  const hn::Rebind<hwy::float16_t, float_tag> half;
  const auto* bytes = reinterpret_cast<const std::int8_t*>(codes + i);
  const auto moved = hn::ShiftLeft<7>(hn::PromoteTo(wide, hn::LoadU(narrow, bytes)));
  // Sign extension copied the sign into the highest exponent bit.
  const auto fields = hn::And(moved, hn::Set(wide, static_cast<std::int16_t>(0xBFFF)));
  return hn::PromoteTo(float_tag{}, hn::BitCast(half, fields));
}

HWY_INLINE float_vec load_at(const int4_group* groups, std::size_t i) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(float_tag{}, int4_groups<>::value(groups, i));
#else
  const int4_group& g = groups[i / int4_group::size];
  const hn::CappedTag<float, 4> four;
  const hn::Rebind<std::uint16_t, decltype(four)> bits;
  const hn::Rebind<hwy::float16_t, decltype(four)> half;
  // The last 8 bytes of the group: 4 bytes of codes, step, low.
  const auto* end = reinterpret_cast<const std::uint16_t*>(&g + 1) - 4;
  const auto parameters = hn::PromoteTo(four, hn::BitCast(half, hn::LoadU(bits, end)));
  const float_vec step = hn::Set(float_tag{}, hn::ExtractLane(parameters, 2));
  const float_vec low = hn::Set(float_tag{}, hn::ExtractLane(parameters, 3));

  // 8 codes are 32 bits; each lane shifts its own code down. Code e is half byte e ^ 1, counted
  // from the lowest.
  const hn::RebindToUnsigned<float_tag> words;
  const hn::RebindToSigned<float_tag> integers;
  const std::size_t first = i % int4_group::size;
  std::uint32_t word[2] = {};
  std::memcpy(word, g.codes.data() + first / 8 * 4, std::max(lanes / 2, 4u));
  auto codes = hn::Set(words, word[0]);
  if constexpr (lanes == 16) {
    const hn::Half<decltype(words)> eight;
    codes = hn::Combine(words, hn::Set(eight, word[1]), hn::Set(eight, word[0]));
  }
  const auto place =
      hn::Xor(hn::And(hn::Iota(words, static_cast<std::uint32_t>(first % 8)), hn::Set(words, 7)),
              hn::Set(words, 1));
  codes = hn::And(hn::Shr(codes, hn::ShiftLeft<2>(place)), hn::Set(words, 15));
  if constexpr (lanes == 16) {  // the group's 16 possible values fit in a register: look them up
    const float_vec values = hn::MulAdd(hn::Iota(float_tag{}, 0.0f), step, low);
    return hn::TableLookupLanes(values,
                                hn::IndicesFromVec(float_tag{}, hn::BitCast(integers, codes)));
  } else {
    return hn::MulAdd(hn::ConvertTo(float_tag{}, hn::BitCast(integers, codes)), step, low);
  }
#endif
}

HWY_INLINE float_vec load_at(const fp8_latent_row* rows, std::size_t i) {
  const fp8_latent_row& row = rows[i / fp8_latent_row::size];
  const std::size_t dim = i % fp8_latent_row::size;
  if (dim >= fp8_latent_row::coded) {
    return load(row.rotated.data() + (dim - fp8_latent_row::coded));
  }
  const float scale = row.scales[dim / fp8_latent_row::of_scale] * load_factor<fp8>;
  return hn::Mul(load_at(row.codes.data(), dim), hn::Set(float_tag{}, scale));
}

// A row of K whose dims have scales and centres, bf16 [Dims] each.
template <std::uint32_t Dims, class Packed>
struct dim_scaled_row {
  const Packed* row;
  const bf16* scales;
};
template <std::uint32_t Dims, class Packed>
HWY_INLINE float_vec load_at(dim_scaled_row<Dims, Packed> x, std::size_t i) {
  return hn::MulAdd(load_at(x.row, i), load(x.scales + i), load(x.scales + Dims + i));
}

// Element i of load_at.
template <class Codec>
HWY_INLINE float value_at(const typename Codec::packed* packed, std::size_t i) {
  return Codec::value(packed, i) * (1.0f / load_factor<typename Codec::packed>);
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
