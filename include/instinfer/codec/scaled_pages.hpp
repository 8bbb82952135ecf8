#pragma once
// Pages of 8-bit codes with one scale per page: int8 and fp8 (e4m3).
// The scale maps the largest magnitude of the page to the largest code.

#include <algorithm>
#include <limits>

#include "instinfer/codec/fp8.hpp"
#include "instinfer/codec/page_codec.hpp"
#include "instinfer/codec/round.hpp"

namespace instinfer {

// An 8-bit code: int8 from -127 to 127, or fp8. |to_value(c)| <= largest; from_value rounds to
// nearest, ties to even.
template <class Code>
struct code_8bit;

template <>
struct code_8bit<std::int8_t> {
  static constexpr const char* name = "int8";
  static constexpr const char* dim_scaled_name = "int8_dims";
  static constexpr float largest = 127.0f;
  static float to_value(std::int8_t c) { return static_cast<float>(c); }
  static std::int8_t from_value(float x) { return static_cast<std::int8_t>(round_to_int(x)); }
};

template <>
struct code_8bit<fp8> {
  static constexpr const char* name = "fp8";
  static constexpr const char* dim_scaled_name = "fp8_dims";
  static constexpr float largest = 448.0f;
  static float to_value(fp8 c) { return to_float(c); }
  static fp8 from_value(float x) { return to_fp8(x); }
};

// Error of a value x on a page whose largest magnitude is m. int8: at most half a step, m / 254.
// fp8: at most 2^-4 |x|, or half a subnormal step, m / 448 * 2^-10, if that is larger. Rounding in
// fp32 comes on top. Pages with a scale below 2^-126 use 2^-126.
template <class Code, Element E>
struct scaled_pages {
  using element = E;
  using packed = Code;
  static constexpr const char* name = code_8bit<Code>::name;
  static constexpr const char* dim_scaled_name = code_8bit<Code>::dim_scaled_name;
  static constexpr float largest_code = code_8bit<Code>::largest;
  static constexpr std::uint32_t scale_bytes = sizeof(float);

  static float value(const Code* codes, std::size_t i) noexcept {
    return code_8bit<Code>::to_value(codes[i]);
  }

  static void encode(std::span<const E> values, std::span<std::byte> page) noexcept {
    const float scale = scale_for(largest_magnitude(values));
    write(
        values.size(), [&](std::size_t i) { return to_float(values[i]) / scale; }, scale, page, 0);
  }

  // The scale of values up to `most`.
  static float scale_for(float most) noexcept {
    // The scale is never denormal: its inverse is then finite, and results do not depend on whether
    // the processor flushes denormals. Nor is the largest code times the scale ever infinite.
    constexpr float largest_scale =
        std::numeric_limits<float>::max() / code_8bit<Code>::largest * (1.0f - 0x1p-23f);
    return std::clamp(most / code_8bit<Code>::largest, std::numeric_limits<float>::min(),
                      largest_scale);
  }

  // Writes the codes of x(i), i < n, and the scale. The `kept` bytes before the scale stay.
  template <class X>
  static void write(std::size_t n, X&& x, float scale, std::span<std::byte> page,
                    std::size_t kept) noexcept {
    auto* codes = reinterpret_cast<Code*>(page.data());
    for (std::size_t i = 0; i < n; ++i) {
      codes[i] = code_8bit<Code>::from_value(x(i));
    }
    const std::size_t scale_at = page.size() - sizeof(scale);
    std::memset(page.data() + n, 0, scale_at - kept - n);
    std::memcpy(page.data() + scale_at, &scale, sizeof(scale));
  }

  static constexpr bool holds(float) { return true; }

 private:
  // By bits, because a maximum of integers vectorises.
  static float largest_magnitude(std::span<const E> values) noexcept {
    decltype(magnitude_bits(E{})) most = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      most = std::max(most, magnitude_bits(values[i]));
    }
    return to_float(std::bit_cast<E>(most));
  }
};

template <Element E = fp16>
using int8_pages = scaled_pages<std::int8_t, E>;
template <Element E = fp16>
using fp8_pages = scaled_pages<fp8, E>;

}  // namespace instinfer
