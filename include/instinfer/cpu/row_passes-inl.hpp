#pragma once
// Plain passes over rows for a block of query heads: products with queries, and weighted sums. For what is not streamed from
// pages in one go, as the fold is: rows of summaries, and K or V alone.

#include "instinfer/core/access_plan.hpp"
#include "instinfer/cpu/head_blocks-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// products[h * stride] = q_h . row for the Heads queries q [Heads, dims]; dims is a multiple of 16.
template <std::uint32_t Heads, class E>
HWY_INLINE void dot_row(const E* row, const float* q, std::size_t dims, float* products,
                        std::size_t stride) {
  float_vec total[Heads];
  for (std::uint32_t h = 0; h < Heads; ++h) {
    total[h] = hn::Zero(float_tag{});
  }
  for (std::size_t i = 0; i < dims; i += lanes) {
    const float_vec x = load(row + i);
    for (std::uint32_t h = 0; h < Heads; ++h) {
      total[h] = hn::MulAdd(x, hn::LoadU(float_tag{}, q + h * dims + i), total[h]);
    }
  }
  for (std::uint32_t h = 0; h < Heads; ++h) {
    products[h * stride] = sum(total[h]);
  }
}

// o[h * dims + i] += weights[h * stride] * row[i].
template <std::uint32_t Heads, class E>
HWY_INLINE void add_row(const E* row, const float* weights, std::size_t stride, float* o,
                        std::size_t dims) {
  for (std::size_t i = 0; i < dims; i += lanes) {
    const float_vec x = load(row + i);
    for (std::uint32_t h = 0; h < Heads; ++h) {
      float* to = o + h * dims + i;
      hn::StoreU(
          hn::MulAdd(x, hn::Set(float_tag{}, weights[h * stride]), hn::LoadU(float_tag{}, to)),
          float_tag{}, to);
    }
  }
}

// Calls f(read, page, t, n) for the wanted tokens of every page of a plan over one stream: token t of the page is the n-th
// wanted one of the head. Pages of one tile of tokens come one after the other.
template <class Pages, class F>
void for_each_row(const access_plan& plan, const Pages& pages, F&& f) {
  const auto reads = plan.reads();
  std::size_t first = 0;  // the number of the tile's first wanted token
  for (std::size_t i = 0; i < reads.size(); ++i) {
    const auto page = pages(reads[i]);
    std::size_t n = first;
    plan.tokens(reads[i]).for_each([&](std::uint32_t t) { f(reads[i], page, t, n++); });
    if (i + 1 < reads.size() && reads[i + 1].token_tile != reads[i].token_tile) {
      first = n;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
