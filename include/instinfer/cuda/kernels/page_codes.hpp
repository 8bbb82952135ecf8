#pragma once
// What pages hold for the attention kernel: elements as the tensor cores take them, or 8-bit codes
// with a scale for each page and head (codec/scaled_pages.hpp). Codes become fp16 in registers, by
// integer operations that every architecture has. The result is bit for bit what the CPU paths
// decode.

#include <concepts>
#include <cstdint>

#include "instinfer/codec/element.hpp"
#include "instinfer/codec/fp8.hpp"

namespace instinfer::cuda {

// widen(lane, codes, even, odd) turns four codes into fp16: codes 0 and 2 go to `even`, 1 and 3 to
// `odd`. The stored value is this number times `factor` times the page's scale.
template <class Code>
struct page_code {
  static constexpr bool coded = false;
};

// e4m3 has four bits of exponent with bias 7, fp16 has five with bias 15. So the same bits,
// shifted, are the value times 2^-8, subnormals too. The codes of NaN, which no page holds, would
// be 480.
template <>
struct page_code<fp8> {
  static constexpr bool coded = true;
  static constexpr float factor = 256.0f;
  template <class Lane>
  static constexpr void widen(const Lane&, std::uint32_t codes, std::uint32_t& even,
                              std::uint32_t& odd) {
    even = (codes << 8 & 0x8000'8000u) | (codes << 7 & 0x3F80'3F80u);
    odd = (codes & 0x8000'8000u) | (codes >> 1 & 0x3F80'3F80u);
  }
};

// 0x6400 is 1024 in fp16, and the last bit there counts 1. With a byte b or-ed in, it is 1024 + b,
// where b is code + 128.
template <>
struct page_code<std::int8_t> {
  static constexpr bool coded = true;
  static constexpr float factor = 1.0f;
  template <class Lane>
  static constexpr void widen(const Lane& lane, std::uint32_t codes, std::uint32_t& even,
                              std::uint32_t& odd) {
    const std::uint32_t b = codes ^ 0x8080'8080u;
    even = lane.subtract_pairs(0x6400'6400u | (b & 0x00FF'00FFu), 0x6480'6480u);
    odd = lane.subtract_pairs(0x6400'6400u | (b >> 8 & 0x00FF'00FFu), 0x6480'6480u);
  }
};

template <class Code>
inline constexpr bool is_coded = page_code<Code>::coded;

// The dim at position p of a row of q, and of the output's tiles. Codes lie in memory by dim, but
// leave a register as evens and odds. They are not sorted: q is stored in the same order, since a
// sum over dims can take any order. The output is reordered when it is written.
template <class Code>
constexpr std::uint32_t dim_at(std::uint32_t p) {
  return is_coded<Code> ? p / 16 * 16 + p % 8 * 2 + p / 8 % 2 : p;
}

}  // namespace instinfer::cuda
