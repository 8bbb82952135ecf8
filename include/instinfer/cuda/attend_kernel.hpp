#pragma once
// The decode attention kernel, written over a `Lane`, one thread of a CTA of four warps: device_lane on a GPU
// (cuda/device_lane.cuh), an emulated one in tests, so that the same code is run against the fp64 reference without a GPU.
//
// Numbers for head size 128 in 16 bits on an H100 (132 SMs, 3.35 TB/s, 1.755 GHz): a token's K and V are 512 B, due every 35
// clocks on each SM. To keep 3.35 TB/s over about 0.8 us of loaded latency (estimate), 2.7 MB must be in flight, 20 KB an SM.
//   - A warp is its own pipeline: 16 tokens a tile, 8 KB, 3 stages of 16-byte cp.async, no barrier but the warp's. Two tiles
//     are in flight while one is computed: 4 warps x 2 CTAs x 16 KB = 128 KB an SM.
//   - Shared memory: 96 KB of stages + 4 KB of q = 100 KB a CTA, two an SM (228 KB; A100, 164 KB: one, 64 KB in flight).
//   - S = Q K^T and O += P V by mma.m16n8k16, heads on M = 16: one code path for groups 1 to 16, K and V leave shared memory
//     once for all heads. 32 mma and 16 ldmatrix.x4 a tile: 64 + 64 of the 560 clocks that its bytes take.
//   - Heads on M, not tokens, costs twice the mma of the transposed form for small groups, which is not what the tile waits
//     for, and lets P go from accumulators to operands without a shuffle.
//   - K and V rows in shared memory are swizzled by 16-byte chunks (chunk ^ row % 8): ldmatrix and cp.async are free of bank
//     conflicts.

#include <array>
#include <cstddef>
#include <limits>

#include "instinfer/cuda/attend_arguments.hpp"
#include "instinfer/cuda/unrolled.hpp"

namespace instinfer::cuda {

inline constexpr std::uint32_t warps_per_cta = 4;
inline constexpr std::uint32_t cta_threads = 32 * warps_per_cta;
inline constexpr std::uint32_t tile_tokens = 16;  // of a warp: the K of mma.m16n8k16 in O += P V
inline constexpr float log2_e = 1.4426950408889634f;
inline constexpr float ln_2 = 0.6931471805599453f;

template <class E, std::uint32_t Dim>
struct tile_shape {
  static_assert(
      Dim == 64 || Dim == 128 || Dim == 256,
      "instinfer: the CUDA path has kernels for head sizes 64, 128 and 256, see cuda/attend_kernel.hpp");
  static_assert(
      sizeof(E) == 2,
      "instinfer: the CUDA path stores K and V as fp16 or bf16, see cuda/attend_kernel.hpp");
  static constexpr std::uint32_t row_bytes = Dim * sizeof(E);
  static constexpr std::uint32_t chunks = row_bytes / 16;
  static constexpr std::uint32_t rows_per_copy =
      32 / chunks;  // rows that a warp's 32 chunks of 16 bytes cover
  static constexpr std::uint32_t tile_bytes = tile_tokens * row_bytes;  // of one stream
  // Head size 64: 64 KB of stages, 3 CTAs an SM; 128: 96 KB, 2; 256: 128 KB, 1, of which 64 KB are in flight.
  static constexpr std::uint32_t stages = Dim == 64 ? 4 : Dim == 128 ? 3 : 2;
  static constexpr std::uint32_t ctas_per_sm = Dim == 64 ? 3 : Dim == 128 ? 2 : 1;
  static constexpr std::uint32_t warp_bytes = stages * 2 * tile_bytes;
  static constexpr std::uint32_t q_bytes = largest_group * row_bytes;
  static constexpr std::uint32_t shared_bytes = warps_per_cta * warp_bytes + q_bytes;
  // Merging the warps reuses the stages: [warps, 16, 2] of max and sum, then [warps, 16, Dim + 8] outputs; 8 floats of padding
  // put the rows of a fragment on distinct banks.
  static constexpr std::uint32_t merge_row = Dim + 8;
  static_assert(warps_per_cta * largest_group * (2 + merge_row) * sizeof(float) <=
                warps_per_cta * warp_bytes);
  static_assert(cta_threads * sizeof(std::uint64_t) <= shared_bytes);

  // Byte offset of 16-byte chunk c of row r.
  static constexpr std::uint32_t offset(std::uint32_t r, std::uint32_t c) {
    return r * row_bytes + ((c ^ (r & 7)) * 16);
  }
};

inline constexpr std::uint32_t no_row = 0xFFFF'FFFFu;

// Finds rows of K (lanes 0 to 15) and V (lanes 16 to 31), one token a lane, two tiles ahead of their use: a list entry is
// loaded for tile i + 2 and a table entry for tile i + 1 while the copies of tile i are issued.
class row_finder {
 public:
  template <class E>
  constexpr row_finder(const paged_stream<E>& stream, std::uint32_t sequence, std::uint32_t head,
                       const std::uint32_t* list, const visible_tokens& seen, std::uint32_t first,
                       std::uint32_t last)
      : table_{stream.table == nullptr ? nullptr : stream.entries(sequence, head)},
        table_page_stride_{stream.table_page_stride},
        table_pages_{stream.table_pages},
        page_tokens_{stream.page_tokens},
        page_count_{stream.page_count},
        page_rows_{stream.page_rows},
        token_rows_{stream.token_rows},
        head_row_{head * stream.head_rows},
        sequence_{sequence},
        list_{list},
        seen_{seen},
        position_{first},
        last_{last} {
    token_ = find_token();
    entry_ = find_entry(token_);
    next_token_ = find_token();
  }

  // The row of this lane's token in the next tile; no_row past the last. What is out of range counts as past it.
  constexpr std::uint32_t next(std::uint32_t& status) {
    std::uint32_t row = no_row;
    if (token_ != none) {
      if (entry_ < page_count_) {
        const std::uint32_t in_page = token_ - page_tokens_(token_) * page_tokens_.value;
        row = entry_ * page_rows_ + head_row_ + in_page * token_rows_;
      } else {
        status |= entry_ == beyond_table ? token_beyond_table : page_out_of_range;
      }
    }
    token_ = next_token_;
    entry_ = find_entry(token_);
    next_token_ = find_token();
    return row;
  }

 private:
  static constexpr std::uint32_t none = 0xFFFF'FFFFu;
  static constexpr std::uint32_t beyond_table = 0xFFFF'FFFEu;

  constexpr std::uint32_t find_token() {
    const std::uint32_t p = position_;
    position_ += warps_per_cta * tile_tokens;
    return p >= last_ ? none : list_ != nullptr ? list_[p] : seen_.token(p);
  }
  constexpr std::uint32_t find_entry(std::uint32_t token) const {
    if (token == none) {
      return none;
    }
    const std::uint32_t index = page_tokens_(token);
    if (index >= table_pages_) {
      return beyond_table;
    }
    return table_ == nullptr ? sequence_ : table_[std::uint64_t{index} * table_page_stride_];
  }

  const std::uint32_t* table_;
  std::uint32_t table_page_stride_;
  std::uint32_t table_pages_;
  divisor page_tokens_;
  std::uint32_t page_count_;
  std::uint32_t page_rows_;
  std::uint32_t token_rows_;
  std::uint32_t head_row_;
  std::uint32_t sequence_;
  const std::uint32_t* list_;
  visible_tokens seen_;
  std::uint32_t position_;
  std::uint32_t last_;
  std::uint32_t token_ = none;
  std::uint32_t entry_ = none;
  std::uint32_t next_token_ = none;
};

// One warp's softmax state and output for 16 heads: a lane has heads r = lane / 4 and r + 8, and of each 16 x 8 tile of the
// output dims 2c and 2c + 1, c = lane % 4. Maxima and sums are of base-2 logits; sums are of the lane's own tokens.
template <std::uint32_t Dim>
struct warp_state {
  float max[2] = {-std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  float sum[2] = {0.0f, 0.0f};
  float out[Dim / 8][4] = {};
};

template <class Lane, class E, class Out, std::uint32_t Dim>
class attend_kernel {
 public:
  using shape = tile_shape<E, Dim>;
  using arguments = attend_arguments<E, Out>;

  constexpr attend_kernel(Lane& lane, const arguments& a, const partition_rule& rule,
                          const attend_workspace& work)
      : lane_{lane},
        a_{a},
        rule_{rule},
        work_{work},
        cap_scale_{a.soft_cap > 0.0f ? 2.0f * log2_e / a.soft_cap : 0.0f},
        warp_{lane.shuffle(lane.thread() / 32, 0)} {}  // one value a warp, as compilers can see

  // Walks this CTA's share of the work.
  constexpr void run() {
    std::uint32_t sequence = 0;
    std::uint64_t at = 0;  // cost before `sequence`
    const cost_share share = find_share(sequence, at);
    if (lane_.block() >= share.ctas) {
      return;
    }
    const std::uint64_t low = share.begin(lane_.block());
    const std::uint64_t high = share.end(lane_.block());
    for (; sequence < a_.sequences && at < high; ++sequence) {
      const visible_tokens seen = seen_of(sequence);
      const std::uint32_t positions = positions_of(sequence, seen);
      const std::uint64_t cost = rule_.cost(positions);
      const std::uint32_t units = rule_.units(positions);
      auto head = static_cast<std::uint32_t>(low > at ? (low - at) / cost : 0);
      for (std::uint64_t item = at + head * cost; head < a_.kv_heads && item < high;
           ++head, item += cost) {
        if (units == 0 && item >= low) {
          store_empty(sequence, head);
        }
        for (piece p = piece_of(rule_, share, lane_.block(), item, units); p.begin < p.end;
             p = piece_of(rule_, share, lane_.block(), item, units, p.end)) {
          attend_piece(sequence, head, seen, positions, p);
        }
      }
      at += cost * a_.kv_heads;
    }
    if (status_ != 0) {
      lane_.set_bits(work_.status, status_);
    }
  }

 private:
  constexpr visible_tokens seen_of(std::uint32_t sequence) const {
    return visible_of(a_.first == nullptr ? 0 : a_.first[sequence], a_.tokens[sequence], a_.window,
                      a_.sinks);
  }
  // Cut to what tables and lists can hold: that there are more is an error, which the checks find and the status tells.
  constexpr std::uint32_t positions_of(std::uint32_t sequence, const visible_tokens& seen) {
    const std::uint32_t wanted = a_.listed == nullptr ? seen.count : a_.listed_counts[sequence];
    if (wanted > a_.most_positions) {
      status_ |= token_beyond_table;
      return a_.most_positions;
    }
    return wanted;
  }
  constexpr std::uint64_t cost_of(std::uint32_t sequence) {
    return rule_.cost(positions_of(sequence, seen_of(sequence))) * a_.kv_heads;
  }
  constexpr std::byte* q_shared() const {
    return lane_.shared() + warps_per_cta * shape::warp_bytes;
  }
  constexpr std::uint32_t lane_id() const { return lane_.thread() % 32; }

  // Sums costs in 128 chunks of sequences, one a thread, then goes to the chunk and the sequence where this CTA's share begins.
  // 4 bytes a sequence from L2 in place of a plan kernel and its launch.
  constexpr cost_share find_share(std::uint32_t& sequence, std::uint64_t& at) {
    auto* sums = reinterpret_cast<std::uint64_t*>(lane_.shared());  // [cta_threads]
    const std::uint32_t chunk = (a_.sequences + cta_threads - 1) / cta_threads;
    std::uint64_t sum = 0;
    for (std::uint32_t i = 0; i < chunk && lane_.thread() * chunk + i < a_.sequences; ++i) {
      sum += cost_of(lane_.thread() * chunk + i);
    }
    sums[lane_.thread()] = sum;
    lane_.sync_block();
    std::uint64_t total = 0;
    const std::uint32_t chunks = chunk == 0 ? 0 : (a_.sequences + chunk - 1) / chunk;
    for (std::uint32_t i = 0; i < chunks; ++i) {
      total += sums[i];
    }
    const cost_share share = share_costs(total, lane_.blocks());
    if (lane_.block() < share.ctas) {
      const std::uint64_t low = share.begin(lane_.block());
      std::uint32_t i = 0;
      for (; at + sums[i] <= low; ++i) {
        at += sums[i];
      }
      sequence = i * chunk;
      for (std::uint64_t cost = cost_of(sequence); at + cost <= low; cost = cost_of(sequence)) {
        at += cost;
        ++sequence;
      }
    }
    lane_.sync_block();
    return share;
  }

  constexpr void attend_piece(std::uint32_t sequence, std::uint32_t head,
                              const visible_tokens& seen, std::uint32_t positions, const piece& p) {
    const auto first = static_cast<std::uint32_t>(p.begin * rule_.unit_tokens);
    const auto last =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(p.end * rule_.unit_tokens, positions));
    load_queries(sequence, head);
    warp_state<Dim> state;
    fold_tiles(state, sequence, head, seen, first, last);
    lane_.sync_block();  // every warp is done with its stages
    merge_warps(state);
    lane_.sync_block();
    store_piece(sequence, head, p);
    lane_.sync_block();  // the stages may be filled again
  }

  // q of the group to shared memory, rows of absent heads as zeros.
  constexpr void load_queries(std::uint32_t sequence, std::uint32_t head) {
    const E* q = a_.q + (std::int64_t{sequence} * a_.kv_heads + head) * a_.group * Dim;
    for (std::uint32_t i = lane_.thread(); i < largest_group * shape::chunks; i += cta_threads) {
      const std::uint32_t row = i / shape::chunks;
      const std::uint32_t chunk = i % shape::chunks;
      lane_.copy_16_bytes(q_shared() + shape::offset(row, chunk),
                          row < a_.group ? q + row * Dim + chunk * (16 / sizeof(E)) : nullptr);
    }
    lane_.sync_block();
  }

  // Fragment of q for dims [16 step, 16 step + 16): the A operand of mma.m16n8k16.
  constexpr void load_query_fragment(std::uint32_t step, std::uint32_t (&fragment)[4]) {
    const std::uint32_t row = lane_id() % 16;
    lane_.load_matrices(q_shared() + shape::offset(row, 2 * step + lane_id() / 16), fragment);
  }

  // The warp's tiles of positions [first, last): every fourth tile of 16, in a pipeline of its own.
  constexpr void fold_tiles(warp_state<Dim>& state, std::uint32_t sequence, std::uint32_t head,
                            const visible_tokens& seen, std::uint32_t first, std::uint32_t last) {
    constexpr std::uint32_t step = warps_per_cta * tile_tokens;
    const std::uint32_t begin = first + warp_ * tile_tokens;
    const std::uint32_t tiles = begin < last ? (last - begin + step - 1) / step : 0;
    std::byte* stages = lane_.shared() + warp_ * shape::warp_bytes;
    const std::uint32_t* list =
        a_.listed == nullptr
            ? nullptr
            : a_.listed + (std::int64_t{sequence} * a_.kv_heads + head) * a_.list_stride;
    row_finder rows(lane_id() < tile_tokens ? a_.k : a_.v, sequence, head, list, seen,
                    begin + lane_id() % tile_tokens, last);

    // In registers up to head size 128 (32 of them); 64 more would spill at 256, which reads them from shared memory again.
    constexpr bool in_registers = Dim <= 128;
    std::uint32_t q[in_registers ? Dim / 16 : 1][4];
    if constexpr (in_registers) {
      unrolled<Dim / 16>([&](auto i) { load_query_fragment(i, q[i]); });
    }
    std::uint32_t fill = 0;  // stage that is filled next
    for (std::uint32_t i = 0; i + 1 < shape::stages; ++i) {
      issue_tile(stages + fill * 2 * shape::tile_bytes, rows, i < tiles);
      fill = fill + 1 == shape::stages ? 0 : fill + 1;
    }
    std::uint32_t use = 0;
    for (std::uint32_t i = 0; i < tiles; ++i) {
      lane_.template wait_copies<shape::stages - 2>();
      lane_
          .sync_warp();  // all lanes' copies have landed, and all are done with the stage that is filled now
      issue_tile(stages + fill * 2 * shape::tile_bytes, rows, i + shape::stages - 1 < tiles);
      fold_tile(state, stages + use * 2 * shape::tile_bytes, q, last - (begin + i * step));
      fill = fill + 1 == shape::stages ? 0 : fill + 1;
      use = use + 1 == shape::stages ? 0 : use + 1;
    }
    lane_.template wait_copies<0>();
  }

  // Starts the copies of one tile: K rows, then V rows. Rows past the end become zeros, V above all: 0 * NaN is NaN.
  constexpr void issue_tile(std::byte* stage, row_finder& rows, bool wanted) {
    if (wanted) {
      const std::uint32_t mine = rows.next(status_);
      const std::uint32_t chunk = lane_id() % shape::chunks;
      unrolled<2 * tile_tokens / shape::rows_per_copy>([&](auto i) {
        const std::uint32_t row = i * shape::rows_per_copy + lane_id() / shape::chunks;
        const std::uint32_t from = lane_.shuffle(mine, row);
        const E* pages = i * shape::rows_per_copy < tile_tokens ? a_.k.pages : a_.v.pages;
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
        lane_.load_matrices(stage + shape::offset(row, 2 * i + half), k);
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
      lane_.load_matrices_transposed(values + shape::offset(row, 2 * i + lane_id() / 16), v);
      lane_.template multiply_add<E>(state.out[2 * i], p, v[0], v[1]);
      lane_.template multiply_add<E>(state.out[2 * i + 1], p, v[2], v[3]);
    });
  }

  // Products to weights 2^(logit - max); rescales the state where a maximum moves. A tile has at least one valid token, so
  // the new maximum is finite.
  constexpr void weigh(warp_state<Dim>& state, float (&s)[2][4], std::uint32_t valid) {
    const float scale = a_.scale;
    const float most = std::numeric_limits<float>::max();
    float max[2] = {state.max[0], state.max[1]};
    unrolled<8>([&](auto at) {
      constexpr std::uint32_t n = at / 4;
      constexpr std::uint32_t j = at % 4;
      float logit = s[n][j] * scale;
      if (a_.soft_cap > 0.0f) {  // cap * tanh(x / cap), as 1 - 2 / (e^2x + 1)
        logit =
            a_.soft_cap * (1.0f - 2.0f * lane_.reciprocal(lane_.exp2(logit * cap_scale_) + 1.0f));
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

  // The four warps' states to shared memory, see tile_shape.
  constexpr void merge_warps(warp_state<Dim>& state) {
    unrolled<2>([&](auto r) {
      const std::uint32_t row = lane_id() / 4 + 8 * r;
      float sum = state.sum[r];
      sum += lane_.shuffle_xor(sum, 1);
      sum += lane_.shuffle_xor(sum, 2);
      if (row < a_.group) {
        if (lane_id() % 4 == 0) {
          maxima()[warp_ * largest_group + row] = state.max[r];
          sums()[warp_ * largest_group + row] = sum;
        }
        float* to =
            outputs() + (warp_ * largest_group + row) * shape::merge_row + lane_id() % 4 * 2;
        unrolled<Dim / 8>([&](auto i) {
          to[8 * i] = state.out[i][2 * r];
          to[8 * i + 1] = state.out[i][2 * r + 1];
        });
      }
    });
  }
  constexpr float* maxima() { return reinterpret_cast<float*>(lane_.shared()); }
  constexpr float* sums() { return maxima() + warps_per_cta * largest_group; }
  constexpr float* outputs() { return maxima() + 2 * warps_per_cta * largest_group; }

  // Writes the piece's result, or its part of it; whoever brings the last part merges them all, in order.
  constexpr void store_piece(std::uint32_t sequence, std::uint32_t head, const piece& p) {
    for (std::uint32_t i = lane_.thread(); i < a_.group * Dim; i += cta_threads) {
      const std::uint32_t row = i / Dim;
      const std::uint32_t dim = i % Dim;
      float max = -std::numeric_limits<float>::infinity();
      for (std::uint32_t w = 0; w < warps_per_cta; ++w) {
        const float m = maxima()[w * largest_group + row];
        max = m > max ? m : max;
      }
      float sum = 0.0f;
      float out = 0.0f;
      for (std::uint32_t w = 0; w < warps_per_cta; ++w) {
        const float keep =
            lane_.exp2(maxima()[w * largest_group + row] - max);  // a warp without tokens: 0
        sum += keep * sums()[w * largest_group + row];
        out += keep * outputs()[(w * largest_group + row) * shape::merge_row + dim];
      }
      if (p.whole()) {
        store(sequence, head, row, dim, max, sum, out);
      } else {
        float* part = work_.part(p.slot, a_.group, Dim);
        part[i] = out;
        if (dim == 0) {
          part[a_.group * Dim + 2 * row] = max;
          part[a_.group * Dim + 2 * row + 1] = sum;
        }
      }
    }
    if (!p.whole() && brings_last_part(p)) {
      merge_parts(sequence, head, p);
    }
  }

  constexpr bool brings_last_part(const piece& p) {
    lane_.fence();  // this thread's part is visible before the ticket says so
    lane_.sync_block();
    auto* last = reinterpret_cast<std::uint32_t*>(lane_.shared());
    if (lane_.thread() == 0) {
      const std::uint32_t before = lane_.add(work_.tickets + p.ticket, 1);
      *last = before + 1 == p.pieces ? 1 : 0;
      if (*last != 0) {
        work_.tickets[p.ticket] = 0;  // for the next launch
      }
    }
    lane_.sync_block();
    lane_.fence();
    return *last != 0;
  }

  // Eight threads a head turn the parts' maxima into weights; then each thread sums four dims at a time over the parts, eight
  // loads in flight.
  constexpr void merge_parts(std::uint32_t sequence, std::uint32_t head, const piece& p) {
    float* totals = reinterpret_cast<float*>(lane_.shared()) + 4;  // [16], behind the flag
    float* weights = totals + largest_group;                       // [pieces, group]
    const auto part = [&](std::uint32_t j) {
      return work_.part(slot_of_piece(rule_, p, j), a_.group, Dim);
    };
    {
      const std::uint32_t row = lane_.thread() / 8;
      const std::uint32_t at = a_.group * Dim + 2 * (row < a_.group ? row : 0);
      float max = -std::numeric_limits<float>::infinity();
      for (std::uint32_t j = lane_.thread() % 8; j < p.pieces; j += 8) {
        const float m = lane_.load_fresh(part(j) + at);
        max = m > max ? m : max;
      }
      for (const std::uint32_t mask : {1u, 2u, 4u}) {
        const float other = lane_.shuffle_xor(max, mask);
        max = other > max ? other : max;
      }
      float sum = 0.0f;
      for (std::uint32_t j = lane_.thread() % 8; j < p.pieces; j += 8) {
        const float weight = lane_.exp2(lane_.load_fresh(part(j) + at) - max);
        sum += weight * lane_.load_fresh(part(j) + at + 1);
        if (row < a_.group) {
          weights[j * a_.group + row] = weight;
        }
      }
      for (const std::uint32_t mask : {1u, 2u, 4u}) {
        sum += lane_.shuffle_xor(sum, mask);
      }
      if (row < a_.group && lane_.thread() % 8 == 0) {
        totals[row] = sum;
        store_lse(sequence, head, row, max, sum);
      }
    }
    lane_.sync_block();
    for (std::uint32_t i = 4 * lane_.thread(); i < a_.group * Dim; i += 4 * cta_threads) {
      const std::uint32_t row = i / Dim;
      float_quad sum{};
      for (std::uint32_t j = 0; j < p.pieces; j += 8) {
        float_quad x[8];
        unrolled<8>([&](auto u) {
          x[u] = j + u < p.pieces ? lane_.load_fresh_quad(part(j + u) + i) : float_quad{};
        });
        unrolled<8>([&](auto u) {
          const float weight = j + u < p.pieces ? weights[(j + u) * a_.group + row] : 0.0f;
          unrolled<4>([&](auto d) { sum.x[d] += weight * x[u].x[d]; });
        });
      }
      unrolled<4>(
          [&](auto d) { store_output(sequence, head, row, i % Dim + d, totals[row], sum.x[d]); });
    }
  }

  constexpr void store_empty(std::uint32_t sequence, std::uint32_t head) {
    for (std::uint32_t i = lane_.thread(); i < a_.group * Dim; i += cta_threads) {
      store(sequence, head, i / Dim, i % Dim, -std::numeric_limits<float>::infinity(), 0.0f, 0.0f);
    }
  }

  constexpr void store(std::uint32_t sequence, std::uint32_t head, std::uint32_t row,
                       std::uint32_t dim, float max, float sum, float out) {
    store_output(sequence, head, row, dim, sum, out);
    if (dim == 0) {
      store_lse(sequence, head, row, max, sum);
    }
  }

  // The normalised output of one dim; zeros where nothing was folded.
  constexpr void store_output(std::uint32_t sequence, std::uint32_t head, std::uint32_t row,
                              std::uint32_t dim, float sum, float out) {
    const std::int64_t item = std::int64_t{sequence} * a_.kv_heads + head;
    const std::int64_t q_head = item * a_.group + row;
    float value = sum > 0.0f ? out * lane_.reciprocal(sum) : 0.0f;
    if (a_.kept != nullptr) {
      const float kept = a_.kept[q_head];
      value = kept * value + (1.0f - kept) * a_.mean_v[item * Dim + dim];
    }
    a_.out[q_head * Dim + dim] = lane_.template narrow<Out>(value);
  }

  // -inf where nothing was folded.
  constexpr void store_lse(std::uint32_t sequence, std::uint32_t head, std::uint32_t row, float max,
                           float sum) {
    if (a_.lse_base_e != nullptr) {
      a_.lse_base_e[(std::int64_t{sequence} * a_.kv_heads + head) * a_.group + row] =
          sum > 0.0f ? (max + lane_.log2(sum)) * ln_2 : -std::numeric_limits<float>::infinity();
    }
  }

  Lane& lane_;
  const arguments& a_;
  const partition_rule& rule_;
  const attend_workspace& work_;
  float cap_scale_;
  std::uint32_t warp_;
  std::uint32_t status_ = 0;
};

}  // namespace instinfer::cuda
