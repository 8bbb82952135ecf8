#pragma once
// FlexGen's 4-bit quantisation of K and V (Sheng et al., ICML 2023, §5).
// A group is 64 consecutive values of a page. It has a step and a minimum in fp16, so it takes 36
// bytes.

#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "instinfer/codec/page_codec.hpp"
#include "instinfer/codec/round.hpp"

namespace instinfer {

// Value i is low + step * code(i). A byte holds two codes; the high half holds the even one.
struct int4_group {
  static constexpr std::uint32_t size = 64;

  std::array<std::uint8_t, size / 2> codes{};
  fp16 step;
  fp16 low;

  std::uint32_t code(std::size_t i) const {
    return i % 2 == 0 ? codes[i / 2] >> 4u : codes[i / 2] & 15u;
  }
};
static_assert(sizeof(int4_group) == 36);

template <>
inline constexpr std::uint32_t packed_elements<int4_group> = int4_group::size;

// In rows a group runs along d, as in FlexGen. In columns (K by dim) it runs along the tokens of
// one dim. FlexGen stores 1 / step. Storing the step takes the same two bytes and saves the kernel
// a division.
//
// The error of a value is at most half a step, (max - min) / 30, plus the error of rounding min and
// step to fp16: |low - min| + 15 |step - (max - min) / 15|. A group of equal fp16 values is exact.
template <Element E = fp16>
struct int4_groups {
  using element = E;
  using packed = int4_group;
  static constexpr const char* name = "int4";
  static constexpr const char* dim_scaled_name = "int4_dims";
  static constexpr float largest_code = 1.0f;  // of values that are brought to one range before
  static constexpr std::uint32_t scale_bytes = 0;

  // code * step has at most 15 significant bits, so it is exact in fp32. The sum is then rounded
  // once, with or without a fused multiply-add.
  static float value(const int4_group* groups, std::size_t i) noexcept {
    const int4_group& g = groups[i / int4_group::size];
    return static_cast<float>(g.code(i % int4_group::size)) * to_float(g.step) + to_float(g.low);
  }

  static void encode(std::span<const E> values, std::span<std::byte> page) noexcept {
    write(values.size(), [&](std::size_t i) { return to_float(values[i]); }, 1.0f, page, 0);
  }

  static float scale_for(float /*most*/) noexcept { return 1.0f; }

  // Writes the groups of x(i), i < n. The last `kept` bytes of the page stay. Zeros fill up a last
  // group that is not full, and count in its minimum and maximum.
  template <class X>
  static void write(std::size_t n, X&& x, float /*scale*/, std::span<std::byte> page,
                    std::size_t kept) noexcept {
    auto* groups = reinterpret_cast<int4_group*>(page.data());
    std::size_t at = 0;
    for (; at < n; at += int4_group::size) {
      std::array<float, int4_group::size> of_group{};
      for (std::size_t i = 0; i < std::min(of_group.size(), n - at); ++i) {
        of_group[i] = x(at + i);
      }
      *groups++ = encoded(of_group);
    }
    const std::size_t used = at / int4_group::size * sizeof(int4_group);
    std::memset(page.data() + used, 0, page.size() - kept - used);
  }

  static constexpr float largest = 65504.0f;  // largest finite fp16
  static constexpr bool holds(float x) { return x >= -largest && x <= largest; }

  static int4_group encoded(const std::array<float, int4_group::size>& x) noexcept {
    const auto [min, max] = bounds(x);
    int4_group g{
        .codes = {}, .step = from_float<fp16>((max - min) / 15.0f), .low = from_float<fp16>(min)};
    const float step = to_float(g.step);
    const float low = to_float(g.low);
    const float steps = step > 0.0f ? 1.0f / step : 0.0f;  // all values equal: every code is 0
    const auto code = [&](float value) {
      return static_cast<std::uint32_t>(
          round_to_int(std::clamp((value - low) * steps, 0.0f, 15.0f)));
    };
    for (std::size_t i = 0; i < g.codes.size(); ++i) {
      g.codes[i] = static_cast<std::uint8_t>(code(x[2 * i]) << 4u | code(x[2 * i + 1]));
    }
    return g;
  }

 private:
  // The smallest and the largest value, of every 16th first: compilers vectorise that.
  static std::pair<float, float> bounds(const std::array<float, int4_group::size>& x) noexcept {
    constexpr std::size_t n = 16;
    std::array<float, n> least, most;
    std::copy_n(x.begin(), n, least.begin());
    most = least;
    for (std::size_t first = n; first < x.size(); first += n) {
      for (std::size_t i = 0; i < n; ++i) {
        least[i] = x[first + i] < least[i] ? x[first + i] : least[i];
        most[i] = x[first + i] > most[i] ? x[first + i] : most[i];
      }
    }
    return {*std::ranges::min_element(least), *std::ranges::max_element(most)};
  }
};

}  // namespace instinfer
