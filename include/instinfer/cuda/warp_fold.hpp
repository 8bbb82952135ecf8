#pragma once
// What one warp does: loads tiles of 16 tokens in a pipeline of its own and folds them into its softmax state.

#include <limits>

#include "instinfer/cuda/row_finder.hpp"
#include "instinfer/cuda/unrolled.hpp"

namespace instinfer::cuda {

// One warp's softmax state and output for 16 heads: a lane has heads r = lane / 4 and r + 8, and of each 16 x 8 tile of the
// output dims 2c and 2c + 1, c = lane % 4. Maxima and sums are of base-2 logits; sums are of the lane's own tokens.
template <std::uint32_t Dim>
struct warp_state {
  float max[2] = {-std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  float sum[2] = {0.0f, 0.0f};
  float out[Dim / 8][4] = {};
};

template <class Lane, class E, std::uint32_t Dim>
class warp_fold {
 public:
  using shape = tile_shape<E, Dim>;

  // q_shared [16, Dim], swizzled; stages [stages, 2, tile] of this warp.
  constexpr warp_fold(Lane& lane, const E* k_pages, const E* v_pages, float scale, float soft_cap,
                      std::byte* stages, const std::byte* q_shared)
      : lane_{lane},
        k_pages_{k_pages},
        v_pages_{v_pages},
        scale_{scale},
        soft_cap_{soft_cap},
        cap_scale_{soft_cap > 0.0f ? 2.0f * log2_e / soft_cap : 0.0f},
        stages_{stages},
        q_shared_{q_shared} {}

  // Folds the tiles that begin at first, first + 64, ... before `last`; `rows` finds their tokens.
  constexpr void fold(warp_state<Dim>& state, row_finder rows, std::uint32_t first,
                      std::uint32_t last) {
    constexpr std::uint32_t step = warps_per_cta * tile_tokens;
    const std::uint32_t tiles = first < last ? (last - first + step - 1) / step : 0;

    // In registers up to head size 128 (32 of them); 64 more would spill at 256, which reads them from shared memory again.
    constexpr bool in_registers = Dim <= 128;
    std::uint32_t q[in_registers ? Dim / 16 : 1][4];
    if constexpr (in_registers) {
      unrolled<Dim / 16>([&](auto i) { load_query_fragment(i, q[i]); });
    }
    std::uint32_t fill = 0;  // stage that is filled next
    for (std::uint32_t i = 0; i + 1 < shape::stages; ++i) {
      issue_tile(stages_ + fill * 2 * shape::tile_bytes, rows, i < tiles);
      fill = fill + 1 == shape::stages ? 0 : fill + 1;
    }
    std::uint32_t use = 0;
    for (std::uint32_t i = 0; i < tiles; ++i) {
      lane_.template wait_copies<shape::stages - 2>();
      // All lanes' copies have landed, and all are done with the stage that is filled now.
      lane_.sync_warp();
      issue_tile(stages_ + fill * 2 * shape::tile_bytes, rows, i + shape::stages - 1 < tiles);
      fold_tile(state, stages_ + use * 2 * shape::tile_bytes, q, last - (first + i * step));
      fill = fill + 1 == shape::stages ? 0 : fill + 1;
      use = use + 1 == shape::stages ? 0 : use + 1;
    }
    lane_.template wait_copies<0>();
  }

  constexpr std::uint32_t status() const { return status_; }

 private:
  // Fragment of q for dims [16 step, 16 step + 16): the A operand of mma.m16n8k16.
  constexpr void load_query_fragment(std::uint32_t step, std::uint32_t (&fragment)[4]) {
    const std::uint32_t row = lane_id() % 16;
    lane_.load_matrices(q_shared_ + shape::offset(row, 2 * step, lane_id() / 16), fragment);
  }

  // Starts the copies of one tile: K rows, then V rows. Rows past the end become zeros, V above all: 0 * NaN is NaN.
  constexpr void issue_tile(std::byte* stage, row_finder& rows, bool wanted) {
    if (wanted) {
      const std::uint32_t mine = rows.next(status_);
      const std::uint32_t chunk = lane_id() % shape::chunks;
      unrolled<2 * tile_tokens / shape::rows_per_copy>([&](auto i) {
        const std::uint32_t row = i * shape::rows_per_copy + lane_id() / shape::chunks;
        const std::uint32_t from = lane_.shuffle(mine, row);
        const E* pages = i * shape::rows_per_copy < tile_tokens ? k_pages_ : v_pages_;
        lane_.copy_16_bytes_async(
            stage + shape::offset(row, chunk),
            pages + (from == no_row ? 0 : std::uint64_t{from} * Dim + chunk * (16 / sizeof(E))),
            from != no_row);
      });
    }
    lane_.commit_copies();
  }

  // One tile of 16 tokens, of which the first `valid` count.
  template <std::size_t Kept>
  constexpr void fold_tile(warp_state<Dim>& state, const std::byte* stage,
                           const std::uint32_t (&q)[Kept][4], std::uint32_t valid) {
    // S [16 heads, 16 tokens], two accumulators of 16 x 8.
    float s[2][4] = {};
    {
      const std::uint32_t row = lane_id() / 16 * 8 + lane_id() % 8;
      const std::uint32_t half = lane_id() / 8 % 2;
      unrolled<Dim / 16>([&](auto i) {
        std::uint32_t k[4];
        lane_.load_matrices(stage + shape::offset(row, 2 * i, half), k);
        if constexpr (Kept == Dim / 16) {
          lane_.template multiply_add<E>(s[0], q[i], k[0], k[1]);
          lane_.template multiply_add<E>(s[1], q[i], k[2], k[3]);
        } else {
          std::uint32_t fragment[4];
          load_query_fragment(i, fragment);
          lane_.template multiply_add<E>(s[0], fragment, k[0], k[1]);
          lane_.template multiply_add<E>(s[1], fragment, k[2], k[3]);
        }
      });
    }
    std::uint32_t p[4];
    weigh(state, s, valid);
    p[0] = lane_.template pack<E>(s[0][0], s[0][1]);
    p[1] = lane_.template pack<E>(s[0][2], s[0][3]);
    p[2] = lane_.template pack<E>(s[1][0], s[1][1]);
    p[3] = lane_.template pack<E>(s[1][2], s[1][3]);
    // O [16 heads, Dim] += P [16, 16 tokens] V [16 tokens, Dim].
    const std::byte* values = stage + shape::tile_bytes;
    const std::uint32_t row = lane_id() / 8 % 2 * 8 + lane_id() % 8;
    unrolled<Dim / 16>([&](auto i) {
      std::uint32_t v[4];
      lane_.load_matrices_transposed(values + shape::offset(row, 2 * i, lane_id() / 16), v);
      lane_.template multiply_add<E>(state.out[2 * i], p, v[0], v[1]);
      lane_.template multiply_add<E>(state.out[2 * i + 1], p, v[2], v[3]);
    });
  }

  // Products to weights 2^(logit - max); rescales the state where a maximum moves. A tile has at least one valid token, so
  // the new maximum is finite.
  constexpr void weigh(warp_state<Dim>& state, float (&s)[2][4], std::uint32_t valid) {
    const float scale = scale_;
    const float most = std::numeric_limits<float>::max();
    float max[2] = {state.max[0], state.max[1]};
    unrolled<8>([&](auto at) {
      constexpr std::uint32_t n = at / 4;
      constexpr std::uint32_t j = at % 4;
      float logit = s[n][j] * scale;
      if (soft_cap_ > 0.0f) {  // cap * tanh(x / cap), as 1 - 2 / (e^2x + 1)
        logit = soft_cap_ * (1.0f - 2.0f * lane_.reciprocal(lane_.exp2(logit * cap_scale_) + 1.0f));
      }
      logit = lane_.clamp(logit * log2_e, -most, most);  // fp32 overflow ends at the largest number
      const std::uint32_t token = n * 8 + lane_id() % 4 * 2 + j % 2;
      s[n][j] = token < valid ? logit : -std::numeric_limits<float>::infinity();
      max[j / 2] = s[n][j] > max[j / 2] ? s[n][j] : max[j / 2];
    });
    bool moved = false;
    unrolled<2>([&](auto r) {
      for (const std::uint32_t mask : {1u, 2u}) {  // the four lanes of a row
        const float other = lane_.shuffle_xor(max[r], mask);
        max[r] = other > max[r] ? other : max[r];
      }
      moved |= max[r] > state.max[r];
    });
    if (lane_.any(moved)) {
      unrolled<2>([&](auto r) {
        const float keep = lane_.exp2(state.max[r] - max[r]);  // 0 for the empty state: 2^-inf
        state.max[r] = max[r];
        state.sum[r] *= keep;
        unrolled<Dim / 8>([&](auto i) {
          state.out[i][2 * r] *= keep;
          state.out[i][2 * r + 1] *= keep;
        });
      });
    }
    unrolled<8>([&](auto at) {
      float& x = s[at / 4][at % 4];
      x = lane_.exp2(x - state.max[at % 4 / 2]);
      state.sum[at % 4 / 2] += x;
    });
  }

  constexpr std::uint32_t lane_id() const { return lane_.thread() % 32; }

  Lane& lane_;
  const E* k_pages_;
  const E* v_pages_;
  float scale_;
  float soft_cap_;
  float cap_scale_;
  std::byte* stages_;
  const std::byte* q_shared_;
  std::uint32_t status_ = 0;
};

}  // namespace instinfer::cuda
