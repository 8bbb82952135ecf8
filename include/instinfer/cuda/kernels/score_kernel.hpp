#pragma once
// The first pass of SparQ and SparF on a GPU, one kernel. It chooses the dims of every query group,
// and scores all tokens by them from the dim-indexed copy of K: products, temperature, soft cap,
// mask, and the softmax state of each 256 tokens. A CTA takes a stretch of a head's tokens. Logits
// go to memory as fp32: 4 bytes for each token and query head, besides 2 r bytes of K a token.

#include "instinfer/cuda/kernels/column_scores.hpp"

namespace instinfer::cuda {

inline constexpr std::uint32_t score_threads = 256;

template <class Lane, class E, std::uint32_t Dim, class Code = E>
class score_kernel {
 public:
  using arguments = sparse_arguments<E, Code>;
  using choice = dim_choice<Lane, E, Dim, Code>;
  static constexpr std::uint32_t shared_bytes = choice::words * 4;

  // A head has `stretches` blocks. Each takes `stretch` tokens, a multiple of score_segment.
  constexpr score_kernel(Lane& lane, const arguments& a, std::uint32_t stretch,
                         std::uint32_t stretches)
      : lane_{lane},
        a_{a},
        stretch_{stretch},
        item_{lane.block() / stretches},
        first_{lane.block() % stretches * stretch},
        sequence_{item_ / a.sizes.kv_heads},
        seen_{a.seen(sequence_)},
        base_{a.base(sequence_)},
        span_{a.span(sequence_)} {}

  constexpr void run() {
    if (first_ >= span_ && first_ > 0) {
      return;
    }
    choice chosen(lane_, a_, reinterpret_cast<std::uint32_t*>(lane_.shared()));
    const std::uint32_t head = item_ % a_.sizes.kv_heads;
    chosen.choose(sequence_, head, first_ == 0);
    scales_ = chosen.scales();
    column_scores<Lane, E, Dim, Code> columns(lane_, a_, chosen, sequence_, head);
    const std::uint32_t last = span_ - first_ < stretch_ ? span_ : first_ + stretch_;
    columns.score(base_ + first_, base_ + last, lane_.thread() / 32, lane_.threads() / 32, *this);
    if (columns.status() != 0) {
      lane_.set_bits(a_.status, columns.status());
    }
  }

  // What a lane keeps of one head while it scores score_segment tokens; see column_scores::score.
  struct scored : float_pair {
    float scale;
    float* logits;  // of the first of them; null for a head that is absent
    bool all_seen;
  };
  constexpr scored open(std::uint32_t g, std::uint32_t token) const {
    const bool present = g < a_.sizes.group;
    const std::uint32_t at = token - base_;
    float* row = a_.logits + (std::int64_t{item_} * a_.sizes.group + g) * a_.logit_stride;
    return {{-std::numeric_limits<float>::infinity(), 0.0f},
            present ? scales_[g] * (a_.soft_cap > 0.0f ? 2.0f / a_.soft_cap : 1.0f) * log2_e : 0.0f,
            present ? row + at : nullptr,
            seen_.shows_all(token, score_segment)};
  }

  // Turns the products of eight tokens into base-2 logits, stores these, and adds them to the
  // state. The eight tokens begin `from` tokens after `token`.
  constexpr void take(scored& s, std::uint32_t token, std::uint32_t from, float (&x)[8]) {
    constexpr float most = std::numeric_limits<float>::max();
    constexpr float none = -std::numeric_limits<float>::infinity();
    unrolled<8>([&](auto t) { x[t] = lane_.clamp(x[t] * s.scale, -most, most); });
    if (a_.soft_cap > 0.0f) {  // cap * tanh(x / cap), as 1 - 2 / (e^2x + 1)
      unrolled<8>([&](auto t) {
        x[t] = a_.soft_cap * log2_e * (1.0f - 2.0f * lane_.reciprocal(lane_.exp2(x[t]) + 1.0f));
      });
    }
    if (!s.all_seen) {
      unrolled<8>([&](auto t) { x[t] = seen_.shows(token + from + t) ? x[t] : none; });
    }
    float max = s.max;
    unrolled<8>([&](auto t) { max = x[t] > max ? x[t] : max; });
    const float most_seen = max > none ? max : 0.0f;
    float sum = s.sum * lane_.exp2(s.max - most_seen);
    unrolled<8>([&](auto t) { sum += lane_.exp2(x[t] - most_seen); });
    s.max = max;
    s.sum = sum;
    if (s.logits != nullptr && token + from - base_ < span_) {
      lane_.store_quad(s.logits + from, {x[0], x[1], x[2], x[3]});
      lane_.store_quad(s.logits + from + 4, {x[4], x[5], x[6], x[7]});
    }
  }

  // Writes the state of the score_segment tokens from `token` on.
  constexpr void close(std::uint32_t spread, std::uint32_t g, std::uint32_t token,
                       const scored& mine) {
    float_pair s = mine;
    for (const std::uint32_t mask : {1u, 2u, 4u, 8u, 16u}) {
      if ((spread & mask) != 0) {
        s = merged(lane_, s, {lane_.shuffle_xor(s.max, mask), lane_.shuffle_xor(s.sum, mask)});
      }
    }
    if ((lane_.thread() % 32 & spread) == 0 && g < a_.sizes.group) {
      const std::int64_t segment =
          item_ * (a_.logit_stride / score_segment) + (token - base_) / score_segment;
      a_.states[segment * a_.sizes.group + g] = s;
    }
  }

 private:
  Lane& lane_;
  const arguments& a_;
  std::uint32_t stretch_;
  std::uint32_t item_;
  std::uint32_t first_;
  std::uint32_t sequence_;
  visible_tokens seen_;
  std::uint32_t base_;  // the token of the first logit
  std::uint32_t span_;
  const float* scales_ = nullptr;
};

}  // namespace instinfer::cuda
