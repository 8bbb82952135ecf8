#pragma once
// The rows of DeepSeek's fp8 cache: 656 bytes for a latent row of 576 values. The format is that of
// FlashMLA's sparse decoding kernels (its README, "FP8 KV cache"), for DeepSeek-V3.2.

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "instinfer/codec/fp8.hpp"
#include "instinfer/codec/page_codec.hpp"

namespace instinfer {

// The first 512 values are codes times the scale of their 128. The last 64, which carry the
// rotation of the position, are stored as they are.
struct fp8_latent_row {
  static constexpr std::uint32_t coded = 512;
  static constexpr std::uint32_t of_scale = 128;
  static constexpr std::uint32_t size = 576;

  std::array<fp8, coded> codes{};
  std::array<float, coded / of_scale> scales{};
  std::array<bf16, size - coded> rotated{};
};
static_assert(sizeof(fp8_latent_row) == 656);

template <>
inline constexpr std::uint32_t packed_elements<fp8_latent_row> = fp8_latent_row::size;

// For latent_format<fp8_latent_rows, 576, 512>. Rows of other lengths are padded to 576 values.
//
// The scale of 128 values is the smallest power of two that is at least their largest magnitude /
// 448, and at least 2^-13, as FlashMLA writes it. The error of a coded value x is at most 2^-4 |x|,
// or half a subnormal step, 2^-10 of the scale, if that is larger. Products of codes and scales are
// exact in bf16. Rows that others wrote may have any scale.
struct fp8_latent_rows {
  using element = bf16;
  using packed = fp8_latent_row;
  static constexpr const char* name = "fp8_latent_rows";
  static constexpr std::uint32_t scale_bytes = 0;  // apart from those in the rows

  static float value(const fp8_latent_row* rows, std::size_t i) noexcept {
    const fp8_latent_row& row = rows[i / fp8_latent_row::size];
    const std::size_t dim = i % fp8_latent_row::size;
    return dim < fp8_latent_row::coded
               ? to_float(row.codes[dim]) * row.scales[dim / fp8_latent_row::of_scale]
               : to_float(row.rotated[dim - fp8_latent_row::coded]);
  }

  // Zeros fill up a last row that is not full.
  static void encode(std::span<const bf16> values, std::span<std::byte> page) noexcept {
    auto* rows = reinterpret_cast<fp8_latent_row*>(page.data());
    std::size_t at = 0;
    for (; at < values.size(); at += fp8_latent_row::size) {
      std::array<bf16, fp8_latent_row::size> x{};
      std::ranges::copy(values.subspan(at, std::min(x.size(), values.size() - at)), x.begin());
      *rows++ = encoded(x);
    }
    const std::size_t used = at / fp8_latent_row::size * sizeof(fp8_latent_row);
    std::memset(page.data() + used, 0, page.size() - used);
  }

  // Beyond 2^127 a code times its scale may be infinite.
  static constexpr float largest = 0x1p127f;
  static constexpr bool holds(float x) { return x >= -largest && x <= largest; }

  static fp8_latent_row encoded(const std::array<bf16, fp8_latent_row::size>& x) noexcept {
    fp8_latent_row row;
    for (std::size_t s = 0; s < row.scales.size(); ++s) {
      const std::size_t first = s * fp8_latent_row::of_scale;
      float most = 0.0f;
      for (std::size_t i = first; i < first + fp8_latent_row::of_scale; ++i) {
        most = std::max(most, std::abs(to_float(x[i])));
      }
      row.scales[s] = power_of_two_from(std::max(most / 448.0f, 0x1p-13f));
      for (std::size_t i = first; i < first + fp8_latent_row::of_scale; ++i) {
        row.codes[i] = to_fp8(to_float(x[i]) / row.scales[s]);
      }
    }
    std::copy(x.begin() + fp8_latent_row::coded, x.end(), row.rotated.begin());
    return row;
  }

 private:
  // The smallest power of two that is at least x, a normal number up to 2^127.
  static float power_of_two_from(float x) {
    constexpr std::uint32_t fraction = 0x7F'FFFFu;
    return std::bit_cast<float>((std::bit_cast<std::uint32_t>(x) + fraction) & ~fraction);
  }
};

}  // namespace instinfer
