#pragma once
// The arguments of the two kernels with which SparQ and SparF select: score (dims, then approximate
// logits) and select (top tokens).

#include <cstdint>
#include <limits>

#include "instinfer/cuda/kernels/wide_values.hpp"
#include "instinfer/cuda/launch/attend_arguments.hpp"

namespace instinfer::cuda {

// K by dim (or by token) in pages of one head. Element (t, i) of a page's tile is at t *
// token_stride + i * dim_stride, see layout::tile. The page is
//   table[sequence * table_sequence_stride + (t / tile_tokens) * table_tile_stride
//         + head * dim_tiles + i / tile_dims].
// Where token_stride is 1, eight tokens of a column are read at once. Pages of 8-bit codes
// (cuda/kernels/page_codes.hpp) have the scale scales[page * scale_page_stride].
template <class E>
struct tiled_stream {
  const E* pages = nullptr;         // 16-byte aligned
  std::uint32_t page_elements = 0;  // from page to page; a multiple of 8
  std::uint32_t page_count = 0;
  divisor tile_tokens{8};  // a multiple of 8
  divisor tile_dims{1};
  std::uint32_t token_stride = 1;
  std::uint32_t dim_stride = 0;  // a multiple of 8 where token_stride is 1
  std::uint32_t dim_tiles = 1;   // of a head
  const std::uint32_t* table = nullptr;
  std::uint32_t table_tiles = 0;  // token tiles of a sequence
  std::uint32_t table_tile_stride = 1;
  std::int64_t table_sequence_stride = 0;
  const float* scales = nullptr;
  std::uint32_t scale_page_stride = 1;
};

// How many of n visible tokens a query keeps: core/budget.hpp on the device, without its errors.
struct kept_tokens {
  double share = 1.0;
  double local_share = 0.0;  // of the kept tokens: the newest, which are always kept
  std::uint32_t most = std::numeric_limits<std::uint32_t>::max();
  std::uint32_t most_local = std::numeric_limits<std::uint32_t>::max();

  static constexpr std::uint32_t rounded_up(double share, std::uint32_t n) {
    const double exact = share * n - 1e-9;  // so that 1/3 of 96 is 32, not 33
    const auto whole = exact > 0.0 ? static_cast<std::uint32_t>(exact) : 0u;
    const std::uint32_t up = whole + (static_cast<double>(whole) < exact ? 1u : 0u);
    const std::uint32_t least = share > 0.0 && n > 0 ? 1u : 0u;
    return up < least ? least : up > n ? n : up;
  }
  constexpr std::uint32_t of(std::uint32_t n) const {
    const std::uint32_t k = rounded_up(share, n);
    return k < most ? k : most;
  }
  constexpr std::uint32_t local(std::uint32_t kept) const {
    const std::uint32_t l = rounded_up(local_share, kept);
    return l < most_local ? l : most_local;
  }
};

inline constexpr std::uint32_t score_segment = 256;  // tokens of a softmax state

// All pointers are device pointers. Logits are in base 2. Entry i of a head's row is token i +
// base, where base is the oldest live token rounded down to a multiple of 8. Hidden tokens are
// -inf.
template <class E, class Code = E>
struct sparse_arguments {
  const E* q = nullptr;  // [sequences, kv_heads * group, dim]
  tiled_stream<Code> k = {};
  const std::uint32_t* tokens = nullptr;  // [sequences], as in attend_arguments
  const std::uint32_t* first = nullptr;
  attend_sizes sizes = {};
  float scale = 0.0f;
  float soft_cap = 0.0f;
  std::uint32_t window = 0;
  std::uint32_t sinks = 0;

  std::uint32_t keep_dims = 0;  // r
  kept_tokens keep = {};
  // Tokens rank by sums over the group: of logits (SparQ), or else of probabilities (SparF).
  bool rank_by_logits = false;

  std::uint32_t* dims = nullptr;  // [sequences, kv_heads, keep_dims], ascending: the chosen ones
  float* logits = nullptr;        // [sequences, kv_heads, group, logit_stride]
  std::int64_t logit_stride = 0;  // a multiple of score_segment, at least most_positions + 7
  float_pair* states = nullptr;   // [sequences, kv_heads, logit_stride / score_segment, group]
  // [sequences, kv_heads, logit_stride]: used where shared memory is too small
  std::uint32_t* keys = nullptr;

  std::uint32_t* listed = nullptr;         // [sequences, kv_heads, list_stride]
  std::uint32_t* listed_counts = nullptr;  // [sequences]
  std::int64_t list_stride = 0;
  // [sequences, kv_heads * group]: the kept tokens' share of the weight, alpha
  float* kept = nullptr;
  std::uint32_t* status = nullptr;  // attend_status

  constexpr std::uint32_t base(std::uint32_t sequence) const {
    return first == nullptr ? 0 : first[sequence] / 8 * 8;
  }
  // Whether there is room for the logits of a sequence. A sequence that does not fit counts as
  // empty.
  constexpr bool fits(std::uint32_t sequence) const {
    return tokens[sequence] < base(sequence) || tokens[sequence] - base(sequence) <= logit_stride;
  }
  // The number of tokens from base on.
  constexpr std::uint32_t span(std::uint32_t sequence) const {
    return fits(sequence) && tokens[sequence] > base(sequence) ? tokens[sequence] - base(sequence)
                                                               : 0;
  }
  constexpr visible_tokens seen(std::uint32_t sequence) const {
    return fits(sequence)
               ? visible_of(first == nullptr ? 0 : first[sequence], tokens[sequence], window, sinks)
               : visible_tokens{};
  }
};

}  // namespace instinfer::cuda
