#pragma once
// The decode attention kernel. It is written over a `Lane`: one thread of a CTA of four warps. On a
// GPU this is device_lane (cuda/launch/device_lane.cuh); tests pass an emulated one. So the same
// code runs against the fp64 reference without a GPU.

#include "instinfer/cuda/kernels/cta_share.hpp"
#include "instinfer/cuda/kernels/head_results.hpp"
#include "instinfer/cuda/kernels/lane_copies.hpp"
#include "instinfer/cuda/kernels/warp_fold.hpp"
#include "instinfer/cuda/kernels/wide_values.hpp"

namespace instinfer::cuda {

template <class Lane, class E, class Out, std::uint32_t Dim, class Code = E,
          class Copies = lane_copies>
class attend_kernel {
 public:
  using lane_type = Lane;
  using shape = tile_shape<E, Dim, Code, Copies>;
  using arguments = attend_arguments<E, Out, Code>;

  constexpr attend_kernel(Lane& lane, const arguments& a, const partition_rule& rule,
                          const attend_workspace& work)
      : lane_{lane},
        a_{a},
        rule_{rule},
        work_{work},
        results_{lane, a},
        warp_{lane.shuffle(lane.thread() / 32, 0)},  // shuffled: compilers see one value a warp
        load_{lane, a.k.pages, a.v.pages, lane.shared() + warp_ * shape::warp_bytes,
              lane.shared() + shape::barriers_at +
                  warp_ * shape::stages * Copies::stage_barrier_bytes} {}

  // Carries out this CTA's share of the work.
  constexpr void run() {
    auto [share, sequence, at] =
        find_share(lane_, a_.sizes.sequences, [&](std::uint32_t s) { return cost_of(s); });
    if (lane_.block() >= share.ctas) {
      return;
    }
    const std::uint64_t low = share.begin(lane_.block());
    const std::uint64_t high = share.end(lane_.block());
    for (; sequence < a_.sizes.sequences && at < high; ++sequence) {
      const visible_tokens seen = seen_of(sequence);
      const std::uint32_t positions = positions_of(sequence, seen);
      const std::uint64_t cost = rule_.cost(positions);
      const std::uint32_t slices = rule_.slices(positions);
      auto head = static_cast<std::uint32_t>(low > at ? (low - at) / cost : 0);
      for (std::uint64_t item = at + head * cost; head < a_.sizes.kv_heads && item < high;
           ++head, item += cost) {
        if (slices == 0 && item >= low) {
          results_.empty(sequence, head);
        }
        for (piece p = piece_of(rule_, share, lane_.block(), item, slices); p.begin < p.end;
             p = piece_of(rule_, share, lane_.block(), item, slices, p.end)) {
          attend_piece(sequence, head, seen, positions, p);
        }
      }
      at += cost * a_.sizes.kv_heads;
    }
    if (status_ != 0) {
      lane_.set_bits(work_.status, status_);
    }
  }

 private:
  using fold = warp_fold<Lane, E, Dim, Code, Copies>;

  constexpr visible_tokens seen_of(std::uint32_t sequence) const {
    return visible_of(a_.first == nullptr ? 0 : a_.first[sequence], a_.tokens[sequence], a_.window,
                      a_.sinks);
  }
  // The number of positions, cut to what tables and lists can hold. A larger number is an error,
  // which the checks find and a status bit reports.
  constexpr std::uint32_t positions_of(std::uint32_t sequence, const visible_tokens& seen) {
    const std::uint32_t wanted = a_.listed == nullptr ? seen.count : a_.listed_counts[sequence];
    if (wanted > a_.sizes.most_positions) {
      status_ |= token_beyond_table;
      return a_.sizes.most_positions;
    }
    return wanted;
  }
  constexpr std::uint64_t cost_of(std::uint32_t sequence) {
    return rule_.cost(positions_of(sequence, seen_of(sequence))) * a_.sizes.kv_heads;
  }
  constexpr std::byte* q_shared() const { return lane_.shared() + shape::q_at; }
  constexpr std::uint32_t lane_id() const { return lane_.thread() % 32; }

  constexpr void attend_piece(std::uint32_t sequence, std::uint32_t head,
                              const visible_tokens& seen, std::uint32_t positions, const piece& p) {
    const auto first = static_cast<std::uint32_t>(p.begin * rule_.slice_tokens);
    const auto last =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(p.end * rule_.slice_tokens, positions));
    load_queries(sequence, head);
    warp_state<Dim> state;
    const float unit = value_unit<E, Code>(positions);
    fold warp(lane_, a_.scale, a_.soft_cap, 1.0f / unit, q_shared());
    const std::uint32_t begin = first + warp_ * tile_tokens;
    warp.fold(state, load_,
              row_finder(lane_id() < tile_tokens ? a_.k : a_.v, sequence, head,
                         list_of(sequence, head), seen, begin + lane_id() % tile_tokens, last),
              begin, last, status_);
    lane_.sync_block();  // every warp is done with its stages
    merge_warps(state);
    lane_.sync_block();
    store_piece(sequence, head, p, unit);
    lane_.sync_block();  // the stages may be filled again
  }

  constexpr const std::uint32_t* list_of(std::uint32_t sequence, std::uint32_t head) const {
    return a_.listed == nullptr
               ? nullptr
               : a_.listed + (std::int64_t{sequence} * a_.sizes.kv_heads + head) * a_.list_stride;
  }

  // Copies q of the group to shared memory, in the order of positions (dim_at). Rows of absent
  // heads are zeros.
  constexpr void load_queries(std::uint32_t sequence, std::uint32_t head) {
    using row = typename shape::q_row;
    const E* q = a_.q + (std::int64_t{sequence} * a_.sizes.kv_heads + head) * a_.sizes.group * Dim;
    for (std::uint32_t i = lane_.thread(); i < largest_group * row::words; i += cta_threads) {
      const std::uint32_t r = i / row::words;
      const std::uint32_t word = i % row::words;
      const bool present = r < a_.sizes.group;
      std::uint32_t x[4];
      lane_.load_8(q + (present ? r * Dim + dim_at<Code>(8 * word) : 0), is_coded<Code> ? 2 : 1,
                   present, x);
      lane_.store_16_bytes(q_shared() + row::offset(r, word), x);
    }
    lane_.sync_block();
  }

  // Writes the states of the four warps to shared memory; tile_shape has the places.
  constexpr void merge_warps(warp_state<Dim>& state) {
    unrolled<2>([&](auto r) {
      const std::uint32_t row = lane_id() / 4 + 8 * r;
      float sum = state.sum[r];
      sum += lane_.shuffle_xor(sum, 1);
      sum += lane_.shuffle_xor(sum, 2);
      if (row < a_.sizes.group) {
        if (lane_id() % 4 == 0) {
          maxima()[warp_ * largest_group + row] = state.max[r];
          sums()[warp_ * largest_group + row] = sum;
        }
        float* to = outputs() + (warp_ * largest_group + row) * shape::merge_row;
        const std::uint32_t column = lane_id() % 4 * 2;
        unrolled<Dim / 8>([&](auto i) {
          to[dim_at<Code>(8 * i + column)] = state.out[i][2 * r];
          to[dim_at<Code>(8 * i + column + 1)] = state.out[i][2 * r + 1];
        });
      }
    });
  }
  constexpr float* maxima() { return reinterpret_cast<float*>(lane_.shared()); }
  constexpr float* sums() { return maxima() + warps_per_cta * largest_group; }
  constexpr float* outputs() { return maxima() + 2 * warps_per_cta * largest_group; }

  // Writes the result of a piece that is a whole item, and otherwise its part of the item. The CTA
  // that brings the last part merges all parts, in order.
  constexpr void store_piece(std::uint32_t sequence, std::uint32_t head, const piece& p,
                             float unit) {
    for (std::uint32_t i = lane_.thread(); i < a_.sizes.group * Dim; i += cta_threads) {
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
        // A warp without tokens counts 0.
        const float keep = lane_.exp2(maxima()[w * largest_group + row] - max);
        sum += keep * sums()[w * largest_group + row];
        out += keep * outputs()[(w * largest_group + row) * shape::merge_row + dim];
      }
      if (p.whole()) {
        results_.whole(sequence, head, row, dim, max, sum, out, unit);
      } else {
        float* part = work_.part(p.slot, a_.sizes.group, Dim);
        part[i] = out;
        if (dim == 0) {
          part[a_.sizes.group * Dim + 2 * row] = max;
          part[a_.sizes.group * Dim + 2 * row + 1] = sum;
        }
      }
    }
    if (!p.whole() && brings_last_part(p)) {
      merge_parts(sequence, head, p, unit);
    }
  }

  constexpr bool brings_last_part(const piece& p) {
    lane_.fence();  // this thread's part is visible before its ticket counts
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

  // First, eight threads a head turn the maxima of the parts into weights. Then each thread sums
  // four dims at a time over the parts, with eight loads in flight.
  constexpr void merge_parts(std::uint32_t sequence, std::uint32_t head, const piece& p,
                             float unit) {
    float* totals = reinterpret_cast<float*>(lane_.shared()) + 4;  // [16], behind the flag
    float* weights = totals + largest_group;                       // [pieces, group]
    const auto part = [&](std::uint32_t j) {
      return work_.part(slot_of_piece(rule_, p, j), a_.sizes.group, Dim);
    };
    {
      const std::uint32_t row = lane_.thread() / 8;
      const std::uint32_t at = a_.sizes.group * Dim + 2 * (row < a_.sizes.group ? row : 0);
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
        if (row < a_.sizes.group) {
          weights[j * a_.sizes.group + row] = weight;
        }
      }
      for (const std::uint32_t mask : {1u, 2u, 4u}) {
        sum += lane_.shuffle_xor(sum, mask);
      }
      if (row < a_.sizes.group && lane_.thread() % 8 == 0) {
        totals[row] = sum;
        results_.lse(sequence, head, row, max, sum);
      }
    }
    lane_.sync_block();
    for (std::uint32_t i = 4 * lane_.thread(); i < a_.sizes.group * Dim; i += 4 * cta_threads) {
      const std::uint32_t row = i / Dim;
      float_quad sum{};
      for (std::uint32_t j = 0; j < p.pieces; j += 8) {
        float_quad x[8];
        unrolled<8>([&](auto u) {
          x[u] = j + u < p.pieces ? lane_.load_fresh_quad(part(j + u) + i) : float_quad{};
        });
        unrolled<8>([&](auto u) {
          const float weight = j + u < p.pieces ? weights[(j + u) * a_.sizes.group + row] : 0.0f;
          unrolled<4>([&](auto d) { sum.x[d] += weight * x[u].x[d]; });
        });
      }
      unrolled<4>([&](auto d) {
        results_.output(sequence, head, row, i % Dim + d, totals[row], sum.x[d], unit);
      });
    }
  }

  Lane& lane_;
  const arguments& a_;
  const partition_rule& rule_;
  const attend_workspace& work_;
  head_results<Lane, E, Out, Dim, Code> results_;
  std::uint32_t warp_;
  typename fold::loader load_;
  std::uint32_t status_ = 0;
};

}  // namespace instinfer::cuda
