#pragma once
// The matrix registers of AMX: products of tiles of bf16, with sums in fp32 (Intel SDM, volume 1,
// chapter 18). One instruction multiplies 16 rows by 16 columns over 32 values in 16 cycles: 16
// times what two vector units do.

#include <type_traits>

#include "instinfer/codec/fp8_latent_rows.hpp"
#include "instinfer/cpu/simd-inl.hpp"
#include "instinfer/cpu/tuning-inl.hpp"

// Linux gives a process these registers on request. Older compilers of LLVM write __AMXBF16__.
#if (defined(__AMX_BF16__) || defined(__AMXBF16__)) && defined(__linux__)
#define INSTINFER_MATRIX_TILES 1
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#else
#define INSTINFER_MATRIX_TILES 0
#endif

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

inline constexpr std::uint32_t matrix_rows = 16;
inline constexpr bool has_matrix_tiles = INSTINFER_MATRIX_TILES != 0 && lanes == matrix_rows;

// Formats whose rows can be folded by tiles (cpu/fold/matrix_fold-inl.hpp): bf16 has room for their
// values, but for the scale of a page.
template <class Packed>
inline constexpr bool fits_bf16 =
    std::is_same_v<Packed, bf16> || std::is_same_v<Packed, std::int8_t> ||
    std::is_same_v<Packed, fp8> || std::is_same_v<Packed, fp8_latent_row>;
template <class Format>
inline constexpr bool folds_by_matrix =
    has_matrix_tiles && fits_bf16<typename Format::packed> &&
    dim_bytes<typename Format::codec> == 0 && Format::k_dim % 32 == 0 && Format::v_dim % 32 == 0;
template <class Format, tuning T>
class matrix_fold;

// A tile of 16 rows. As the right operand of a product, row i has values 2i and 2i + 1 of column 0,
// then of column 1, and so on.
struct alignas(64) bf16_tile {
  bf16 values[matrix_rows][32];
};
struct alignas(64) float_tile {
  float values[matrix_rows][matrix_rows];
};

#if INSTINFER_MATRIX_TILES

// Whether the system lets this process use the registers. Asked once.
inline bool matrix_tiles_allowed() {
  constexpr long request_permission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long tile_data = 18;               // the state component XTILEDATA
  static const bool allowed = ::syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
  return allowed;
}

// This thread's registers while it lives: 8 tiles of 16 rows of 64 bytes.
class matrix_registers {
 public:
  matrix_registers() {
    struct alignas(64) {
      std::uint8_t palette = 1;
      std::uint8_t start_row = 0;
      std::uint8_t reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } shape;
    static_assert(sizeof(shape) == 64);
    _tile_loadconfig(&shape);
  }
  ~matrix_registers() { _tile_release(); }
  matrix_registers(const matrix_registers&) = delete;
  matrix_registers& operator=(const matrix_registers&) = delete;
};

// What was written is in memory for the loads of tiles that follow: g++'s do not say that they read
// memory.
inline void before_tile_loads() { std::atomic_signal_fence(std::memory_order_seq_cst); }

// Row j of `to` becomes column j of m, whose values are pairs.
HWY_INLINE void transpose(const std::uint32_t (&m)[matrix_rows][matrix_rows], bf16_tile& to) {
  const hn::ScalableTag<std::uint32_t> words;
  const hn::Repartition<std::uint64_t, decltype(words)> pairs;
  using vec = hn::Vec<decltype(words)>;
  const auto row = [&to](std::uint32_t i)
                       HWY_ATTR { return reinterpret_cast<std::uint32_t*>(to.values[i]); };
  vec v[matrix_rows];
  HWY_UNROLL(4)
  for (std::uint32_t i = 0; i < matrix_rows; i += 4) {  // 4 x 4 in each block of 128 bits
    const vec a = hn::Load(words, m[i]), b = hn::Load(words, m[i + 1]);
    const vec c = hn::Load(words, m[i + 2]), d = hn::Load(words, m[i + 3]);
    const auto ab = hn::BitCast(pairs, hn::InterleaveLower(words, a, b));
    const auto cd = hn::BitCast(pairs, hn::InterleaveLower(words, c, d));
    const auto ab_high = hn::BitCast(pairs, hn::InterleaveUpper(words, a, b));
    const auto cd_high = hn::BitCast(pairs, hn::InterleaveUpper(words, c, d));
    v[i] = hn::BitCast(words, hn::InterleaveLower(pairs, ab, cd));
    v[i + 1] = hn::BitCast(words, hn::InterleaveUpper(pairs, ab, cd));
    v[i + 2] = hn::BitCast(words, hn::InterleaveLower(pairs, ab_high, cd_high));
    v[i + 3] = hn::BitCast(words, hn::InterleaveUpper(pairs, ab_high, cd_high));
  }
  HWY_UNROLL(4)
  for (std::uint32_t i = 0; i < 4; ++i) {  // the blocks of 4 rows
    const vec a = v[i], b = v[i + 4], c = v[i + 8], d = v[i + 12];
    const vec low = hn::ConcatLowerLower(words, c, a), low2 = hn::ConcatLowerLower(words, d, b);
    const vec high = hn::ConcatUpperUpper(words, c, a), high2 = hn::ConcatUpperUpper(words, d, b);
    hn::Store(hn::OddEvenBlocks(hn::SwapAdjacentBlocks(low2), low), words, row(i));
    hn::Store(hn::OddEvenBlocks(low2, hn::SwapAdjacentBlocks(low)), words, row(i + 4));
    hn::Store(hn::OddEvenBlocks(hn::SwapAdjacentBlocks(high2), high), words, row(i + 8));
    hn::Store(hn::OddEvenBlocks(high2, hn::SwapAdjacentBlocks(high)), words, row(i + 12));
  }
}

#else

inline bool matrix_tiles_allowed() { return false; }

#endif

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
