#pragma once
// A centre and a scale for each dim of K, in pages by token (KIVI, Liu et al., ICML 2024).
// A few dims of K are large, and keep their sign. In codes with one scale for all dims, they set
// the step of all.

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/codec/scaled_pages.hpp"

namespace instinfer {

// Codec, with x = centre + scale * code for each value x of K. A page of K by token has both for
// each of its dims, over its tokens, in bf16: 4 bytes a dim, in front of the page's own scale. V
// and pages of K by dim are as with Codec. Rows of K in pages by token are contiguous.
//
// Error of a value of K: with int8, half a step, (max - min) / 254 of its dim; with int4, where a
// group's values are brought to [-1, 1] first, (max - min) of its dim times 1/30 of the group's
// range / 2. The scale is rounded up to bf16, by at most 2^-7 of its value, and rounding of the
// centre to bf16 widens the range by at most 2^-8 of it on each side.
template <PageCodec Codec>
struct dim_scales {
  static_assert(
      !std::is_same_v<typename Codec::packed, fp8>,
      "instinfer: dim_scales is for int8_pages and int4_groups: fp8 has steps of any size, see codec/dim_scales.hpp");
  using element = typename Codec::element;
  using packed = typename Codec::packed;
  static constexpr const char* name = Codec::dim_scaled_name;
  static constexpr std::uint32_t scale_bytes = Codec::scale_bytes;
  static constexpr std::uint32_t dim_bytes = 2 * sizeof(bf16);

  static float value(const packed* codes, std::size_t i) noexcept { return Codec::value(codes, i); }
  static void encode(std::span<const element> values, std::span<std::byte> page) noexcept {
    Codec::encode(values, page);
  }

  // A page of K by token. Its other values, if any, are rows of V.
  static void encode(std::span<const element> values, const key_rows& k,
                     std::span<std::byte> page) noexcept {
    float most = 0.0f;  // of V
    for (std::size_t i = 0; i < values.size(); ++i) {
      most = k.dim_of(i) < k.dims ? most : std::max(most, std::abs(to_float(values[i])));
    }
    const float scale = Codec::scale_for(most);
    bf16* const scales =
        reinterpret_cast<bf16*>(page.data() + page.size() - scale_bytes) - std::size_t{2} * k.dims;
    for (std::uint32_t i = 0; i < k.dims; ++i) {
      const auto [dim_scale, centre] = scale_of_dim(values, k, i);
      scales[i] = dim_scale;
      scales[k.dims + i] = centre;
    }
    Codec::write(
        values.size(),
        [&](std::size_t i) {
          const std::uint32_t dim = k.dim_of(i);
          const float x = to_float(values[i]);
          return dim < k.dims ? (x - to_float(scales[k.dims + dim])) / to_float(scales[dim])
                              : x / scale;
        },
        scale, page, dim_bytes * k.dims);
  }

  // A code times its scale may be somewhat larger than the largest value.
  static constexpr float largest = [] {
    if constexpr (requires { Codec::largest; }) {
      return Codec::largest;
    } else {
      return 0x1p127f;
    }
  }();
  static constexpr bool holds(float x) { return x >= -largest && x <= largest; }

 private:
  struct dim_parameters {
    bf16 scale;
    bf16 centre;
  };

  static dim_parameters scale_of_dim(std::span<const element> values, const key_rows& k,
                                     std::uint32_t dim) {
    float low = largest_finite<fp32>;
    float high = -low;
    for (std::uint32_t t = 0; t < k.tokens; ++t) {
      const float x = to_float(values[k.origin + std::size_t{t} * k.token_stride + dim]);
      low = std::min(low, x);
      high = std::max(high, x);
    }
    const bf16 centre = from_float<bf16>(low / 2 + high / 2);
    const float reach = std::max(high - to_float(centre), to_float(centre) - low);
    // Never denormal, as the scale of a page.
    const float scale = std::max(reach / Codec::largest_code, std::numeric_limits<float>::min());
    bf16 rounded = from_float<bf16>(scale);
    if (to_float(rounded) < scale) {
      ++rounded.bits;
    }
    return {rounded, centre};
  }
};

template <Element E = fp16>
using int8_dims = dim_scales<int8_pages<E>>;
template <Element E = fp16>
using int4_dims = dim_scales<int4_groups<E>>;

}  // namespace instinfer
