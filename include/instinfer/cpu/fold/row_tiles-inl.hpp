#pragma once
// Rows of K and V as operands of matrix tiles. Stored values that bf16 has room for become bf16.

#include <algorithm>
#include <span>

#include "instinfer/cpu/coded_load-inl.hpp"
#include "instinfer/cpu/fold/matrix_tiles-inl.hpp"

#if INSTINFER_MATRIX_TILES

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Values [i, i + lanes) of a row as the bits of bf16, each in a word. DeepSeek's rows are rounded
// to bf16 if their scales are no powers of two, as FlashMLA's are.
template <class Packed>
HWY_INLINE auto bf16_bits(const Packed* row, std::size_t i) {
  const hn::RebindToUnsigned<float_tag> words;
  if constexpr (std::is_same_v<Packed, bf16>) {
    const hn::Rebind<std::uint16_t, float_tag> halves;
    return hn::PromoteTo(words, hn::LoadU(halves, &row[i].bits));
  } else {
    auto bits = hn::BitCast(words, load_at(row, i));
    if constexpr (std::is_same_v<Packed, fp8_latent_row>) {
      bits = hn::Add(bits, hn::Set(words, 0x8000));
    }
    return hn::ShiftRight<16>(bits);
  }
}

// The left operand of products over dims [32 first, 32 (first + tiles)): tile i of them goes to
// to[i * stride].
template <class Packed>
HWY_INLINE void rows_by_dims(std::span<const Packed* const, matrix_rows> rows, std::uint32_t first,
                             std::uint32_t tiles, bf16_tile* to, std::uint32_t stride) {
  const hn::Rebind<std::uint16_t, float_tag> halves;
  for (std::uint32_t t = 0; t < matrix_rows; ++t) {
    for (std::uint32_t i = 0; i < tiles; ++i) {
      bf16* values = to[i * stride].values[t];
      const std::size_t dim = std::size_t{32} * (first + i);
      if constexpr (std::is_same_v<Packed, bf16>) {
        std::copy_n(rows[t] + dim, 32, values);
      } else {
        for (std::size_t d = 0; d < 32; d += lanes) {
          hn::Store(hn::TruncateTo(halves, bf16_bits(rows[t], dim + d)), halves, &values[d].bits);
        }
      }
    }
  }
}

// The right operand of products over two rows: tile n of their dims goes to row `pair` of to[n].
template <class Packed>
HWY_INLINE void pair_of_rows(const Packed* even, const Packed* odd, std::uint32_t tiles,
                             std::uint32_t pair, bf16_tile* to) {
  const hn::RebindToUnsigned<float_tag> words;
  for (std::uint32_t n = 0; n < tiles; ++n) {
    const auto low = bf16_bits(even, std::size_t{n} * matrix_rows);
    const auto high = bf16_bits(odd, std::size_t{n} * matrix_rows);
    hn::Store(hn::Or(low, hn::ShiftLeft<16>(high)), words,
              reinterpret_cast<std::uint32_t*>(to[n].values[pair]));
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();

#endif
