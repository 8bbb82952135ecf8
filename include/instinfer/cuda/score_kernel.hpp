#pragma once
// The first pass of SparQ and SparF on a GPU: chooses the dims of every query group, and scores all tokens by them from the
// dim-indexed copy of K. One kernel: dims, products, temperature, soft cap, mask and the softmax's chunk states.
//
// A lane takes 8 tokens of a column with one 16-byte load, four columns in flight: 4 warps x 32 lanes x 64 B = 8 KB a CTA. Of
// codes, eight columns of 8 bytes; a page's scale multiplies q.
// ptxas gives 96, 128, 168 registers for 1, 4, 8 heads at a time: 5, 4, 3 CTAs an SM, so 40, 32, 24 KB in flight. With r = 16 of 128 dims a token costs 32 B of K and 4 B of logits a query head.

#include "instinfer/core/element.hpp"
#include "instinfer/core/top_k.hpp"
#include "instinfer/cuda/cta_share.hpp"
#include "instinfer/cuda/page_codes.hpp"
#include "instinfer/cuda/sparse_arguments.hpp"
#include "instinfer/cuda/tile_shape.hpp"

namespace instinfer::cuda {

// `Heads` query heads of the group are scored at a time: 8 * Heads sums in registers.
template <class Lane, class E, std::uint32_t Dim, std::uint32_t Heads, class Code = E>
class score_kernel {
 public:
  static constexpr std::uint32_t columns_at_once = 8 / sizeof(Code);
  static constexpr std::uint32_t unit_tokens = warps_per_cta * score_chunk;
  // A function, not a constant: device code cannot take the address of a host's constant.
  static constexpr partition_rule rule() { return {.unit_tokens = unit_tokens}; }
  // find_share's sums; or |q| keys, chosen dims, q of the chosen dims [Dim, 16] and the heads' scales.
  static constexpr std::uint32_t shared_bytes =
      Dim * 4 + Dim * 4 + (Dim + columns_at_once) * largest_group * 4 + largest_group * 4;
  static_assert(shared_bytes >= cta_threads * sizeof(std::uint64_t));

  constexpr score_kernel(Lane& lane, const sparse_arguments<E, Code>& a) : lane_{lane}, a_{a} {}

  constexpr void run() {
    auto [share, sequence, at] = find_share(lane_, a_.sizes.sequences, [&](std::uint32_t s) {
      return rule().cost(a_.span(s)) * a_.sizes.kv_heads;
    });
    if (lane_.block() >= share.ctas) {
      return;
    }
    const std::uint64_t low = share.begin(lane_.block());
    const std::uint64_t high = share.end(lane_.block());
    for (; sequence < a_.sizes.sequences && at < high; ++sequence) {
      const std::uint64_t cost = rule().cost(a_.span(sequence));
      const std::uint32_t units = rule().units(a_.span(sequence));
      auto head = static_cast<std::uint32_t>(low > at ? (low - at) / cost : 0);
      for (std::uint64_t item = at + head * cost; head < a_.sizes.kv_heads && item < high;
           ++head, item += cost) {
        const piece p = piece_of(rule(), share, lane_.block(), item, units);
        if (p.begin < p.end || (units == 0 && item >= low)) {
          choose_dims(sequence, head, p.begin == 0);
        }
        for (std::uint64_t u = p.begin; u < p.end; ++u) {
          score_chunk_of_warp(sequence, head,
                              static_cast<std::uint32_t>(u * warps_per_cta + lane_.thread() / 32));
        }
        lane_.sync_block();  // shared memory is the next item's
      }
      at += cost * a_.sizes.kv_heads;
    }
    if (status_ != 0) {
      lane_.set_bits(a_.status, status_);
    }
  }

 private:
  // |q| summed over the group, [Dim]; the chosen dims, [keep_dims]; q of the chosen dims, [keep_dims + padding, 16]; scale, [16].
  constexpr float* magnitudes() const { return reinterpret_cast<float*>(lane_.shared()); }
  constexpr std::uint32_t* dims() const {
    return reinterpret_cast<std::uint32_t*>(magnitudes() + Dim);
  }
  constexpr float* weights() const { return magnitudes() + 2 * Dim; }
  constexpr float* scales() const { return weights() + (Dim + columns_at_once) * largest_group; }

  // The keep_dims largest sums of |q| over the group, ties to the lower dim: a dim is chosen if fewer than keep_dims are
  // before it in that order. Dim^2 comparisons, 128 to 512 a thread.
  constexpr void choose_dims(std::uint32_t sequence, std::uint32_t head, bool store) {
    const std::int64_t item = std::int64_t{sequence} * a_.sizes.kv_heads + head;
    const E* q = a_.q + item * a_.sizes.group * Dim;
    for (std::uint32_t i = lane_.thread(); i < Dim; i += cta_threads) {
      float sum = 0.0f;
      for (std::uint32_t g = 0; g < a_.sizes.group; ++g) {
        const float x = to_float(q[g * Dim + i]);
        sum += x < 0.0f ? -x : x;
      }
      magnitudes()[i] = sum;
    }
    lane_.sync_block();
    auto* chosen = reinterpret_cast<std::uint32_t*>(weights());  // [Dim], until the weights come
    for (std::uint32_t i = lane_.thread(); i < Dim; i += cta_threads) {
      const auto mine = order_key(magnitudes()[i]);
      std::uint32_t before = 0;
      for (std::uint32_t j = 0; j < Dim; ++j) {
        const auto other = order_key(magnitudes()[j]);
        before += other > mine || (other == mine && j < i) ? 1 : 0;
      }
      chosen[i] = before < a_.keep_dims ? 1 : 0;
    }
    lane_.sync_block();
    for (std::uint32_t i = lane_.thread(); i < Dim; i += cta_threads) {
      std::uint32_t place = 0;
      for (std::uint32_t j = 0; j < i; ++j) {
        place += chosen[j];
      }
      if (chosen[i] != 0) {
        dims()[place] = i;
        if (store) {
          a_.dims[item * a_.keep_dims + place] = i;
        }
      }
    }
    lane_.sync_block();
    // q of the chosen dims, heads side by side; absent heads and the padding are zeros.
    for (std::uint32_t i = lane_.thread(); i < (Dim + columns_at_once) * largest_group;
         i += cta_threads) {
      const std::uint32_t j = i / largest_group;
      const std::uint32_t g = i % largest_group;
      weights()[i] =
          j < a_.keep_dims && g < a_.sizes.group ? to_float(q[g * Dim + dims()[j]]) : 0.0f;
    }
    // Temperature: scale / sqrt(|q[dims]|_1 / |q|_1), 1 for a zero query.
    if (lane_.thread() < a_.sizes.group) {
      float all = 0.0f;
      float kept = 0.0f;
      for (std::uint32_t i = 0; i < Dim; ++i) {
        const float x = to_float(q[lane_.thread() * Dim + i]);
        all += x < 0.0f ? -x : x;
      }
      for (std::uint32_t j = 0; j < a_.keep_dims; ++j) {
        const float x = to_float(q[lane_.thread() * Dim + dims()[j]]);
        kept += x < 0.0f ? -x : x;
      }
      scales()[lane_.thread()] =
          a_.scale * (all > 0.0f && kept > 0.0f ? lane_.inverse_root(kept / all) : 1.0f);
    }
    lane_.sync_block();
  }

  // One warp's 256 tokens of a head: 8 a lane, for all query heads of the group.
  constexpr void score_chunk_of_warp(std::uint32_t sequence, std::uint32_t head,
                                     std::uint32_t chunk) {
    const std::uint32_t last = a_.tokens[sequence];
    const std::uint32_t at = chunk * score_chunk + lane_.thread() % 32 * 8;  // from base on
    const std::uint32_t token = a_.base(sequence) + at;
    const visible_tokens seen = a_.seen(sequence);
    if (chunk * score_chunk >= a_.span(sequence)) {
      return;  // the whole warp
    }
    const std::int64_t item = std::int64_t{sequence} * a_.sizes.kv_heads + head;
    for (std::uint32_t g = 0; g < a_.sizes.group; g += Heads) {
      float sums[Heads][8] = {};
      if (token < last) {
        add_columns(sequence, head, token, g, sums);
      }
      unrolled<Heads>([&](auto h) {
        if (g + h < a_.sizes.group) {
          finish_row(item, g + h, chunk, at, token, seen, sums[h]);
        }
      });
    }
  }

  // sums [Heads, 8] of q k over the chosen dims for 8 tokens of one tile, four columns in flight.
  constexpr void add_columns(std::uint32_t sequence, std::uint32_t head, std::uint32_t token,
                             std::uint32_t g, float (&sums)[Heads][8]) {
    const tiled_stream<Code>& k = a_.k;
    const std::uint32_t tile = k.tile_tokens(token);
    if (tile >= k.table_tiles) {
      status_ |= token_beyond_table;
      return;
    }
    const std::uint32_t in_tile = token - tile * k.tile_tokens.value;
    const std::uint32_t* entries = k.table + sequence * k.table_sequence_stride +
                                   std::int64_t{tile} * k.table_tile_stride +
                                   std::int64_t{head} * k.dim_tiles;
    for (std::uint32_t j = 0; j < a_.keep_dims; j += columns_at_once) {
      std::uint32_t packed[columns_at_once][2 * sizeof(Code)];
      float scales[columns_at_once];
      unrolled<columns_at_once>([&](auto c) {
        const std::uint32_t dim = dims()[j + c < a_.keep_dims ? j + c : a_.keep_dims - 1];
        const std::uint32_t dim_tile = k.tile_dims(dim);
        const std::uint32_t page = entries[dim_tile];
        const bool known = page < k.page_count;
        status_ |= known ? 0u : page_out_of_range;
        const Code* from = k.pages + std::int64_t{known ? page : 0} * k.page_elements +
                           (dim - dim_tile * k.tile_dims.value) * k.dim_stride +
                           std::int64_t{in_tile} * k.token_stride;
        lane_.load_8(from, k.token_stride, known, packed[c]);
        if constexpr (is_coded<Code>) {
          scales[c] =
              known ? k.scales[std::int64_t{page} * k.scale_page_stride] * page_code<Code>::unit
                    : 0.0f;
        } else {
          scales[c] = 1.0f;
        }
      });
      unrolled<columns_at_once>([&](auto c) {
        float x[8];
        if constexpr (is_coded<Code>) {
          unrolled<2>([&](auto i) {
            std::uint32_t even = 0;
            std::uint32_t odd = 0;
            page_code<Code>::widen(lane_, packed[c][i], even, odd);
            lane_.template widen<fp16>(even, x[4 * i], x[4 * i + 2]);
            lane_.template widen<fp16>(odd, x[4 * i + 1], x[4 * i + 3]);
          });
        } else {
          unrolled<4>(
              [&](auto i) { lane_.template widen<E>(packed[c][i], x[2 * i], x[2 * i + 1]); });
        }
        unrolled<Heads>([&](auto h) {
          const float weight = weights()[(j + c) * largest_group + g + h] * scales[c];
          unrolled<8>([&](auto t) { sums[h][t] += weight * x[t]; });
        });
      });
    }
  }

  // Products to base-2 logits of one query head, stored, and the softmax state of the warp's chunk.
  constexpr void finish_row(std::int64_t item, std::uint32_t g, std::uint32_t chunk,
                            std::uint32_t at, std::uint32_t token, const visible_tokens& seen,
                            float (&x)[8]) {
    const float cap = a_.soft_cap;
    const float cap_scale = cap > 0.0f ? 2.0f * log2_e / cap : 0.0f;
    const float most = std::numeric_limits<float>::max();
    float max = -std::numeric_limits<float>::infinity();
    unrolled<8>([&](auto t) {
      float logit = x[t] * scales()[g];
      if (cap > 0.0f) {
        logit = cap * (1.0f - 2.0f * lane_.reciprocal(lane_.exp2(logit * cap_scale) + 1.0f));
      }
      x[t] = seen.shows(token + t) ? lane_.clamp(logit * log2_e, -most, most)
                                   : -std::numeric_limits<float>::infinity();
      max = x[t] > max ? x[t] : max;
    });
    for (const std::uint32_t mask : {1u, 2u, 4u, 8u, 16u}) {
      const float other = lane_.shuffle_xor(max, mask);
      max = other > max ? other : max;
    }
    float sum = 0.0f;
    if (max > -std::numeric_limits<float>::infinity()) {
      unrolled<8>([&](auto t) { sum += lane_.exp2(x[t] - max); });
    }
    for (const std::uint32_t mask : {1u, 2u, 4u, 8u, 16u}) {
      sum += lane_.shuffle_xor(sum, mask);
    }
    float* row = a_.logits + (item * a_.sizes.group + g) * a_.logit_stride + at;
    lane_.store_quad(row, {x[0], x[1], x[2], x[3]});
    lane_.store_quad(row + 4, {x[4], x[5], x[6], x[7]});
    if (lane_.thread() % 32 == 0) {
      a_.states[(item * (a_.logit_stride / score_chunk) + chunk) * a_.sizes.group + g] = {max, sum};
    }
  }

  Lane& lane_;
  const sparse_arguments<E, Code>& a_;
  std::uint32_t status_ = 0;
};

}  // namespace instinfer::cuda
