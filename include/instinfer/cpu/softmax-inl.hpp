#pragma once
// Softmax kernels of the CPU path: scaled and capped logits, their maximum, exponentials and sum.

#include <limits>

#include <hwy/contrib/math/math-inl.h>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// clang++ does not tell of -fassociative-math (codec/float_rules.hpp), and its pragma does not
// reach into intrinsics. So the two places of exp that must round as written are written such that
// it cannot fold them, where it does: on targets without fused multiply-add.
inline constexpr bool may_reassociate =
#if defined(__clang__) && !HWY_NATIVE_FMA
    true;
#else
    false;
#endif

// 2^-shift exp(x) for x <= 0, within 2 units in the last place of fp32; 0 if that is below 2^-126.
// It takes half the operations of an exp for all numbers: x = n ln 2 + r with |r| <= ln 2 / 2, then
// 1 + r + r^2 P(r), and n - shift goes to the exponent. P has minimax coefficients of degree 4
// (relative error 4e-9). shift <= 64.
HWY_INLINE float_vec exp_of_negative(float_vec x, std::uint32_t shift = 0) {
  const float_tag f;
  const hn::RebindToSigned<float_tag> integers;
  const auto constant = [f](float c) HWY_ATTR { return hn::Set(f, c); };
  // n - shift is then in the lowest bits
  const float_vec rounder = constant(0x1.8p23f - static_cast<float>(shift));
  const float_vec shifted = hn::MulAdd(x, constant(0x1.715476p0f), rounder);
  float_vec n = hn::Sub(shifted, rounder);
  if constexpr (may_reassociate) {  // the same difference in integers
    n = hn::ConvertTo(f, hn::Sub(hn::BitCast(integers, shifted), hn::BitCast(integers, rounder)));
  }
  // n ln 2 in two parts: the first product is exact.
  float_vec r = hn::NegMulAdd(n, constant(0x1.63p-1f), x);
  if constexpr (may_reassociate) {  // changes no value, but keeps the products apart
    r = hn::Min(r, constant(1.0f));
  }
  r = hn::NegMulAdd(n, constant(-0x1.bd0106p-13f), r);
  float_vec p = hn::MulAdd(constant(0x1.6a2434p-10f), r, constant(0x1.1239e2p-7f));
  p = hn::MulAdd(p, r, constant(0x1.5558f2p-5f));
  p = hn::MulAdd(p, r, constant(0x1.555492p-3f));
  p = hn::MulAdd(p, r, constant(0x1.fffffcp-2f));
  p = hn::Add(constant(1.0f), hn::MulAdd(hn::Mul(r, r), p, r));
  const auto power = hn::ShiftLeft<23>(hn::BitCast(integers, shifted));
  const float_vec scaled = hn::BitCast(f, hn::Add(hn::BitCast(integers, p), power));
  constexpr float ln_2 = 0x1.62e42ep-1f;  // rounded down: no result is denormal
  return hn::IfThenElseZero(hn::Ge(x, constant((static_cast<float>(shift) - 126.0f) * ln_2)),
                            scaled);
}

// to[i] = f(x[i]), lanes floats at a time. The remainder goes through a small buffer filled up with
// `neutral`. `to` may be x.
template <class F>
HWY_INLINE void transform(const float* x, float* to, std::size_t n, float neutral, F&& f) {
  constexpr std::size_t step = lanes;
  std::size_t i = 0;
  for (; i + step <= n; i += step) {
    hn::StoreU(f(hn::LoadU(float_tag{}, x + i)), float_tag{}, to + i);
  }
  if (i < n) {
    HWY_ALIGN float tail[16];
    std::fill_n(tail, 16, neutral);
    std::copy(x + i, x + n, tail);
    hn::Store(f(hn::Load(float_tag{}, tail)), float_tag{}, tail);
    std::copy_n(tail, n - i, to + i);
  }
}

// Limits x to the finite numbers of fp32. NaN, the sum of both infinities, becomes the largest one,
// because Min then returns the number.
HWY_INLINE float_vec kept_finite(float_vec x) {
  constexpr float largest = std::numeric_limits<float>::max();
  return hn::Max(hn::Min(x, hn::Set(float_tag{}, largest)), hn::Set(float_tag{}, -largest));
}

// x[i] = cap(x[i] * scale), with a finite product. Lane i of the result is the largest x[j] with j
// % lanes == i, or -inf if there is none.
HWY_INLINE float_vec scale_logits_by_lane(float* x, std::size_t n, float scale, float soft_cap) {
  const float lowest = -std::numeric_limits<float>::infinity();
  const float_vec factor = hn::Set(float_tag{}, scale);
  float_vec max = hn::Set(float_tag{}, lowest);
  if (soft_cap > 0.0f) {
    const float_vec cap = hn::Set(float_tag{}, soft_cap);
    const float_vec inverse = hn::Set(float_tag{}, 1.0f / soft_cap);
    transform(x, x, n, lowest, [&](float_vec v) HWY_ATTR {
      const float_vec scaled = kept_finite(hn::Mul(v, factor));
      const float_vec capped = hn::Mul(cap, hn::Tanh(float_tag{}, hn::Mul(scaled, inverse)));
      max = hn::Max(max, capped);
      return capped;
    });
  } else {
    transform(x, x, n, lowest, [&](float_vec v) HWY_ATTR {
      const float_vec scaled = kept_finite(hn::Mul(v, factor));
      max = hn::Max(max, scaled);
      return scaled;
    });
  }
  return max;
}

// The same, but returns the maximum.
HWY_INLINE float scale_logits(float* x, std::size_t n, float scale, float soft_cap) {
  const float_vec max = scale_logits_by_lane(x, n, scale, soft_cap);
  return n == 0 ? -std::numeric_limits<float>::infinity()
                : hn::GetLane(hn::MaxOfLanes(float_tag{}, max));
}

// Adds the biases of row h of a query to its logits [tokens].
inline void add_bias(const attention::query_group& q, std::uint32_t h, index_view tokens,
                     std::span<float> logits) {
  const row_bias bias = q.bias.row(h);
  auto logit = logits.begin();
  tokens.for_each([&](std::uint32_t t) {
    *logit = bias.added_to(*logit, t);
    ++logit;
  });
}

// Adds the biases of rows [first_head, first_head + heads) of a query to the logits x [rows,
// stride] of the tokens. The rows after these become -inf. Lane i of the result is the largest x[j]
// with j % lanes == i; rows * stride is a multiple of it.
HWY_NOINLINE inline float_vec add_bias_by_lane(const logit_bias& bias, std::uint32_t first_head,
                                               std::uint32_t heads,
                                               std::span<const std::uint32_t> tokens, float* x,
                                               std::uint32_t stride, std::uint32_t rows) {
  for (std::uint32_t h = 0; h < heads; ++h) {
    const row_bias of_head = bias.row(first_head + h);
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      float& logit = x[t * stride + h];
      logit = of_head.added_to(logit, tokens[t]);
    }
  }
  const std::size_t all = std::size_t{rows} * stride;
  const float lowest = -std::numeric_limits<float>::infinity();
  std::fill(x + tokens.size() * stride, x + all, lowest);
  float_vec max = hn::Set(float_tag{}, lowest);
  for (std::size_t i = 0; i < all; i += lanes) {
    max = hn::Max(max, hn::Load(float_tag{}, x + i));
  }
  return max;
}

// The largest x; -inf if there is none.
HWY_INLINE float max_of(const float* x, std::size_t n) {
  float_vec max = hn::Set(float_tag{}, -std::numeric_limits<float>::infinity());
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    max = hn::Max(max, hn::LoadU(float_tag{}, x + i));
  }
  float largest = hn::GetLane(hn::MaxOfLanes(float_tag{}, max));
  for (; i < n; ++i) {
    largest = std::max(largest, x[i]);
  }
  return largest;
}

// Lane i becomes the largest of the lanes that are equal to i modulo Slots, a power of 2.
template <std::uint32_t Slots>
HWY_INLINE float_vec max_by_slot(float_vec v) {
  const hn::RebindToSigned<float_tag> index_tag;
  for (std::uint32_t d = Slots; d < lanes; d *= 2) {
    const auto turned = hn::And(hn::Iota(index_tag, static_cast<std::int32_t>(d)),
                                hn::Set(index_tag, static_cast<std::int32_t>(lanes - 1)));
    v = hn::Max(v, hn::TableLookupLanes(v, hn::IndicesFromVec(float_tag{}, turned)));
  }
  return v;
}

// to[i] = 2^-shift exp(x[i] - max); returns the sum. max is finite and at least as large as every
// x. `to` may be x.
HWY_INLINE float exponentials(const float* x, float* to, std::size_t n, float max,
                              std::uint32_t shift = 0) {
  const float_vec from = hn::Set(float_tag{}, max);
  float_vec total = hn::Zero(float_tag{});
  transform(x, to, n, -std::numeric_limits<float>::infinity(), [&](float_vec v) HWY_ATTR {
    const float_vec p = exp_of_negative(hn::Sub(v, from), shift);
    total = hn::Add(total, p);
    return p;
  });
  return sum(total);
}

// x[i] *= factor.
HWY_INLINE void multiply(float* x, std::size_t n, float factor) {
  transform(x, x, n, 0.0f,
            [&](float_vec v) HWY_ATTR { return hn::Mul(v, hn::Set(float_tag{}, factor)); });
}

// to[i] += from[i].
HWY_INLINE void accumulate(float* to, const float* from, std::size_t n) {
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(hn::Add(hn::LoadU(float_tag{}, to + i), hn::LoadU(float_tag{}, from + i)),
               float_tag{}, to + i);
  }
  for (; i < n; ++i) {
    to[i] += from[i];
  }
}

// Sum of x[0, n), n a multiple of 4 lanes, with one pass of loads: the probe of a processor's read
// bandwidth. Prefetches the values `ahead` floats later to L2.
HWY_INLINE float sum_of(const float* x, std::size_t n, std::size_t ahead) {
  stored_vec total[4] = {hn::Zero(float_tag{}), hn::Zero(float_tag{}), hn::Zero(float_tag{}),
                         hn::Zero(float_tag{})};
  for (std::size_t i = 0; i < n; i += 4 * lanes) {
    if (ahead > 0) {
      for (std::uint32_t j = 0; j < 4; ++j) {
        prefetch(x + i + ahead + j * lanes);
      }
    }
    HWY_UNROLL(4)
    for (std::uint32_t j = 0; j < 4; ++j) {
      total[j] = hn::Add(total[j], hn::LoadU(float_tag{}, x + i + j * lanes));
    }
  }
  return sum(hn::Add(hn::Add(total[0], total[1]), hn::Add(total[2], total[3])));
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
