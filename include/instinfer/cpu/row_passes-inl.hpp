#pragma once
// Plain passes over rows for a block of query heads: products with queries, and weighted sums.
// They are for rows that are not streamed from pages at once as in the fold: rows of summaries, and
// K or V alone.

#include "instinfer/core/access_plan.hpp"
#include "instinfer/cpu/any_tile-inl.hpp"
#include "instinfer/cpu/head_blocks-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// products[h * stride] = q_h . row for the Heads queries q [Heads, dims]; dims is a multiple of 16.
template <std::uint32_t Heads, class E>
HWY_INLINE void dot_row(const E* row, const float* q, std::size_t dims, float* products,
                        std::size_t stride) {
  stored_vec total[Heads];
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

// Whether token t of a page is a plain row of Dims elements, as the kernels above need.
template <std::uint32_t Dims, class Page>
bool has_row(const Page& page) {
  if constexpr (requires { requires Element<std::remove_cvref_t<decltype(*page.data)>>; }) {
    return page.shape.dim_stride == 1 && page.shape.dims == Dims;
  } else {
    return false;  // coded, or coded on some pages only
  }
}

// products[h * stride] += q_h . K[t, dims] for one token of a page. q [group, Dims] starts at the
// page's first dim.
template <std::uint32_t Dims, class Page>
void dot_token(const Page& page, std::uint32_t t, index_view dims, std::uint32_t group,
               const float* q, float* products, std::size_t stride) {
  if constexpr (requires { page.data; }) {
    if (has_row<Dims>(page)) {
      for_head_blocks(group, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
        dot_row<Heads>(page.data + page.shape.offset(t, 0), q + h * Dims, Dims,
                       products + h * stride, stride);
      });
      return;
    }
  }
  const index_run one{t, t + 1};
  score_any(page, {{&one, 1}, 1}, dims, group, q, Dims, products - t, stride);
}

// o[h * Dims + i] += weights[h * stride] * V[t, i] for one token of a page. o starts at the page's
// first dim.
template <std::uint32_t Dims, class Page>
void add_token(const Page& page, std::uint32_t t, std::uint32_t group, const float* weights,
               std::size_t stride, float* o) {
  if constexpr (requires { page.data; }) {
    if (has_row<Dims>(page)) {
      for_head_blocks(group, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
        add_row<Heads>(page.data + page.shape.offset(t, 0), weights + h * stride, stride,
                       o + h * Dims, Dims);
      });
      return;
    }
  }
  const index_run one{t, t + 1};
  fold_any(page, {{&one, 1}, 1}, group, weights - t, stride, o, Dims);
}

// Calls f(read, page, t, n) for the wanted tokens of every page of a plan over one stream: token t
// of the page is the n-th wanted token of the head. Pages of one tile of tokens are consecutive.
template <class Pages, class F>
void for_each_row(const access_plan& plan, const Pages& pages, F&& f) {
  const auto reads = plan.reads();
  const auto ahead = pages.ahead(plan);
  std::size_t first = 0;  // number of the tile's first wanted token
  for (std::size_t i = 0; i < reads.size(); ++i) {
    const auto page = ahead(reads[i]);
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
