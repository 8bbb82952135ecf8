#pragma once
// Passes over rows for the query heads of a group: products with queries, and weighted sums.
// They are for rows that are not streamed from pages at once as in the fold: rows of summaries, and
// K or V alone.

#include "instinfer/core/access_plan.hpp"
#include "instinfer/cpu/fold/any_tile-inl.hpp"
#include "instinfer/cpu/head_blocks-inl.hpp"
#include "instinfer/cpu/score/score_block-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

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

// products[h * stride + n] += q_h . K[t, dims] for the n-th of a page's tokens. Products are 0 at
// first. q [group, Dims] starts at the page's first dim.
template <std::uint32_t Dims, class Page>
void score_page(const Page& page, index_view tokens, index_view dims, std::uint32_t group,
                const float* q, float* products, std::size_t stride) {
  if constexpr (requires { page.data; }) {
    if (has_row<Dims>(page)) {
      score_set<Dims, std::remove_cvref_t<decltype(*page.data)>>(
          tokens, q, group, [&](std::size_t n) { return products + n; }, stride,
          [&](std::uint32_t t, std::uint32_t) { return page.data + page.shape.offset(t, 0); },
          [](std::size_t, std::uint32_t) {});
      return;
    }
  }
  std::size_t n = 0;
  tokens.for_each([&](std::uint32_t t) {
    const index_run one{t, t + 1};
    score_any(page, {{&one, 1}, 1}, dims, group, q, Dims, products + n++ - t, stride);
  });
}

// o[h * Dims + i] += the sum over t < count of weights[h * stride + t] * rows[t][i] for all heads.
template <std::uint32_t Dims, class Packed>
HWY_NOINLINE void add_block(const Packed* const* rows, std::uint32_t count, const float* weights,
                            std::size_t stride, std::uint32_t group, float* o) {
  for_head_blocks(group, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
    float by_row[score_rows_at_once * slots<Heads>];
    for (std::uint32_t t = 0; t < count; ++t) {
      for (std::uint32_t head = 0; head < Heads; ++head) {
        by_row[t * slots<Heads> + head] = weights[(h + head) * stride + t];
      }
    }
    accumulate_rows<Heads, Dims>(rows, count, by_row, o + h * Dims, rows_ahead<Packed>{});
  });
}

// o[h * Dims + i] += weights[h * stride + n] * V[t, i] for the n-th of some tokens of a page. o
// starts at the page's first dim.
template <std::uint32_t Dims, class Page>
void add_page(const Page& page, index_view tokens, std::uint32_t group, const float* weights,
              std::size_t stride, float* o) {
  std::size_t n = 0;
  if constexpr (requires { page.data; }) {
    if (has_row<Dims>(page)) {
      const std::remove_cvref_t<decltype(*page.data)>* rows[score_rows_at_once];
      std::uint32_t count = 0;
      const auto flush = [&] {
        add_block<Dims>(rows, count, weights + n, stride, group, o);
        n += count;
        count = 0;
      };
      tokens.for_each([&](std::uint32_t t) {
        rows[count] = page.data + page.shape.offset(t, 0);
        if (++count == score_rows_at_once) {
          flush();
        }
      });
      if (count > 0) {
        flush();
      }
      return;
    }
  }
  tokens.for_each([&](std::uint32_t t) {
    const index_run one{t, t + 1};
    fold_any(page, {{&one, 1}, 1}, group, weights + n++ - t, stride, o, Dims);
  });
}

// Calls f(read, page, n) for every page of a plan over one stream: its wanted tokens are the n-th
// and the following wanted tokens of the head. Pages of one tile of tokens are consecutive.
template <class Pages, class F>
void for_each_page(const access_plan& plan, const Pages& pages, F&& f) {
  const auto reads = plan.reads();
  const auto ahead = pages.ahead(plan);
  std::size_t first = 0;  // number of the tile's first wanted token
  for (std::size_t i = 0; i < reads.size(); ++i) {
    f(reads[i], ahead(reads[i]), first);
    if (i + 1 < reads.size() && reads[i + 1].token_tile != reads[i].token_tile) {
      first += plan.tokens(reads[i]).count();
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
