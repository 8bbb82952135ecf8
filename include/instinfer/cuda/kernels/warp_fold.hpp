#pragma once
// What one warp does: it folds tiles of 16 tokens, which a loader brings, into its softmax state.

#include <limits>

#include "instinfer/cuda/kernels/row_finder.hpp"
#include "instinfer/cuda/kernels/unrolled.hpp"

namespace instinfer::cuda {

// One warp's softmax state and output for 16 heads. Lane l has heads r = l / 4 and r + 8. Of each
// 16 x 8 tile of the output it has positions 2c and 2c + 1, with c = l % 4; see dim_at. Sums are of
// the lane's own tokens, in base 2, relative to `max`: the largest logit, or for codes the largest
// logit plus log2 of its V scale. `out` is in the unit of value_unit.hpp.
template <std::uint32_t Dim>
struct warp_state {
  float max[2] = {-std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  float sum[2] = {0.0f, 0.0f};
  float out[Dim / 8][4] = {};
};

template <class Lane, class E, std::uint32_t Dim, class Code, class Copies>
class warp_fold {
 public:
  using shape = tile_shape<E, Dim, Code, Copies>;
  using row = typename shape::row;
  using q_row = typename shape::q_row;
  using loader = typename Copies::template loader<Lane, Code, shape>;

  // per_unit: 1 / value_unit. q_shared [16, Dim], swizzled.
  constexpr warp_fold(Lane& lane, float scale, float soft_cap, float per_unit,
                      const std::byte* q_shared)
      : lane_{lane},
        scale_{scale},
        soft_cap_{soft_cap},
        cap_scale_{soft_cap > 0.0f ? 2.0f * log2_e / soft_cap : 0.0f},
        per_unit_{per_unit},
        q_shared_{q_shared} {}

  // Folds the tiles that begin at first, first + 64, ... before `last`; `rows` finds their tokens.
  constexpr void fold(warp_state<Dim>& state, loader& load, row_finder rows, std::uint32_t first,
                      std::uint32_t last, std::uint32_t& status) {
    constexpr std::uint32_t step = warps_per_cta * tile_tokens;
    const std::uint32_t tiles = first < last ? (last - first + step - 1) / step : 0;

    // Up to head size 128, q stays in registers (32 of them). At 256, 64 more would spill; there q
    // is read from shared memory again for each tile.
    constexpr bool in_registers = Dim <= 128;
    std::uint32_t q[in_registers ? Dim / 16 : 1][4];
    if constexpr (in_registers) {
      unrolled<Dim / 16>([&](auto i) { load_query_fragment(i, q[i]); });
    }
    load.begin();
    for (std::uint32_t i = 0; i + 1 < shape::stages; ++i) {
      load.issue(rows, i < tiles, status);
    }
    for (std::uint32_t i = 0; i < tiles; ++i) {
      const std::byte* stage = load.next();
      load.issue(rows, i + shape::stages - 1 < tiles, status);
      fold_tile(state, stage, q, last - (first + i * step));
    }
    load.finish();
  }

 private:
  // Scales of this lane's tokens 8 n + 2 (lane % 4) + j, at [n][j]: what K and V are multiplied by,
  // V in the unit of sums, and by how many powers of two the weight is shifted for V. P V is in
  // fp16, where a weight times a small scale would lose bits or vanish. So the maximum is that of
  // logit plus log2(V scale), and the largest product is about 1.
  struct token_scales {
    float k[2][2];
    float v[2][2];
    float shift[2][2];
  };

  // Loads the fragment of q for positions [16 step, 16 step + 16): the A operand of mma.m16n8k16.
  constexpr void load_query_fragment(std::uint32_t step, std::uint32_t (&fragment)[4]) {
    const std::uint32_t head = lane_id() % 16;
    lane_.load_matrices(q_shared_ + q_row::offset(head, 2 * step, lane_id() / 16), fragment);
  }
  // s[n] += q k of 16 positions, k[n] for tokens 8 n to 8 n + 7.
  template <std::size_t Kept>
  constexpr void multiply_query(float (&s)[2][4], const std::uint32_t (&q)[Kept][4],
                                std::uint32_t step, const std::uint32_t (&k)[2][2]) {
    const auto multiply = [&](const std::uint32_t(&fragment)[4]) {
      lane_.template multiply_add<E>(s[0], fragment, k[0][0], k[0][1]);
      lane_.template multiply_add<E>(s[1], fragment, k[1][0], k[1][1]);
    };
    if constexpr (Kept == Dim / 16) {
      multiply(q[step]);
    } else {
      std::uint32_t fragment[4];
      load_query_fragment(step, fragment);
      multiply(fragment);
    }
  }

  // Folds one tile of 16 tokens. Only the first `valid` tokens count.
  template <std::size_t Kept>
  constexpr void fold_tile(warp_state<Dim>& state, const std::byte* stage,
                           const std::uint32_t (&q)[Kept][4], std::uint32_t valid) {
    // S [16 heads, 16 tokens], two accumulators of 16 x 8. A register of K has two dims of a token,
    // or four if they are codes.
    float s[2][4] = {};
    {
      const std::uint32_t token = lane_id() / 16 * 8 + lane_id() % 8;
      const std::uint32_t half = lane_id() / 8 % 2;
      unrolled<row::words / 2>([&](auto i) {
        std::uint32_t k[4];
        lane_.load_matrices(stage + row::offset(token, 2 * i, half), k);
        if constexpr (is_coded<Code>) {
          unrolled<2>([&](auto h) {
            std::uint32_t pairs[2][2];
            page_code<Code>::widen(lane_, k[h], pairs[0][0], pairs[0][1]);
            page_code<Code>::widen(lane_, k[2 + h], pairs[1][0], pairs[1][1]);
            multiply_query(s, q, 2 * i + h, pairs);
          });
        } else {
          multiply_query(s, q, i, {{k[0], k[1]}, {k[2], k[3]}});
        }
      });
    }
    weigh(state, s, valid, stage + 2 * shape::tile_bytes);
    const std::uint32_t p[4] = {
        lane_.template pack<E>(s[0][0], s[0][1]), lane_.template pack<E>(s[0][2], s[0][3]),
        lane_.template pack<E>(s[1][0], s[1][1]), lane_.template pack<E>(s[1][2], s[1][3])};
    // O [16 heads, Dim] += P [16, 16 tokens] V [16 tokens, Dim].
    const std::byte* values = stage + shape::tile_bytes;
    const std::uint32_t token = lane_id() / 8 % 2 * 8 + lane_id() % 8;
    unrolled<row::words / 2>([&](auto i) {
      std::uint32_t v[4];
      lane_.load_matrices_transposed(values + row::offset(token, 2 * i, lane_id() / 16), v);
      unrolled<2>([&](auto h) {
        if constexpr (is_coded<Code>) {
          std::uint32_t even[2];
          std::uint32_t odd[2];
          unrolled<2>(
              [&](auto t) { page_code<Code>::widen(lane_, v[2 * h + t], even[t], odd[t]); });
          lane_.template multiply_add<E>(state.out[4 * i + 2 * h], p, even[0], even[1]);
          lane_.template multiply_add<E>(state.out[4 * i + 2 * h + 1], p, odd[0], odd[1]);
        } else {
          lane_.template multiply_add<E>(state.out[2 * i + h], p, v[2 * h], v[2 * h + 1]);
        }
      });
    });
  }

  constexpr token_scales scales_at(const std::byte* stage_scales) {
    const auto* scales = reinterpret_cast<const float*>(stage_scales);  // [2, 16]: K, V
    token_scales found;
    unrolled<4>([&](auto at) {
      constexpr std::uint32_t n = at / 2;
      constexpr std::uint32_t j = at % 2;
      const std::uint32_t token = n * 8 + lane_id() % 4 * 2 + j;
      found.k[n][j] = scales[token] * page_code<Code>::factor;
      found.v[n][j] = scales[tile_tokens + token] * (page_code<Code>::factor * per_unit_);
      // A page of zeros has the smallest scale, 2^-126, with which sums of 2^(logit - max) could
      // overflow. So the shift is at least -100, for a scale of 2^-60.
      const float log = lane_.log2(found.v[n][j]);
      found.shift[n][j] = log > -100.0f ? log : -100.0f;
    });
    return found;
  }

  // Turns products into weights 2^(logit - max), for codes times the V scale, for sums in their
  // unit. Rescales the state where a maximum moves. A tile has at least one valid token, so the new
  // maximum is finite.
  constexpr void weigh(warp_state<Dim>& state, float (&s)[2][4], std::uint32_t valid,
                       [[maybe_unused]] const std::byte* stage_scales) {
    [[maybe_unused]] token_scales scales{};
    if constexpr (is_coded<Code>) {
      scales = scales_at(stage_scales);
    }
    const float most = std::numeric_limits<float>::max();
    float max[2] = {state.max[0], state.max[1]};
    unrolled<8>([&](auto at) {
      constexpr std::uint32_t n = at / 4;
      constexpr std::uint32_t j = at % 4;
      float logit = s[n][j] * scale_;
      if constexpr (is_coded<Code>) {
        logit *= scales.k[n][j % 2];
      }
      if (soft_cap_ > 0.0f) {  // cap * tanh(x / cap), as 1 - 2 / (e^2x + 1)
        logit = soft_cap_ * (1.0f - 2.0f * lane_.reciprocal(lane_.exp2(logit * cap_scale_) + 1.0f));
      }
      logit = lane_.clamp(logit * log2_e, -most, most);  // fp32 overflow ends at the largest number
      const std::uint32_t token = n * 8 + lane_id() % 4 * 2 + j % 2;
      s[n][j] = token < valid ? logit : -std::numeric_limits<float>::infinity();
      float rank = s[n][j];
      if constexpr (is_coded<Code>) {
        rank += scales.shift[n][j % 2];
      }
      max[j / 2] = rank > max[j / 2] ? rank : max[j / 2];
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
      constexpr std::uint32_t n = at / 4;
      constexpr std::uint32_t j = at % 4;
      const float weight = lane_.exp2(s[n][j] - state.max[j / 2]);
      state.sum[j / 2] += weight;
      s[n][j] = weight;
      if constexpr (is_coded<Code>) {
        s[n][j] *= scales.v[n][j % 2];
      } else if constexpr (std::same_as<E, bf16>) {
        s[n][j] *= per_unit_;
      }
    });
  }

  constexpr std::uint32_t lane_id() const { return lane_.thread() % 32; }

  Lane& lane_;
  float scale_;
  float soft_cap_;
  float cap_scale_;
  float per_unit_;
  const std::byte* q_shared_;
};

}  // namespace instinfer::cuda
