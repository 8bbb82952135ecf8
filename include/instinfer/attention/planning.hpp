#pragma once
// The planning functions: one per reading operation of the attention machine, shared by every path. The page filter of
// InstInfer Alg. 1 (steps 1) is the loop over tiles; the entry filter (steps 2) is the run lists of each page.

#include <algorithm>
#include <cassert>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/layout/head_pages.hpp"

namespace instinfer::attention {

namespace detail {

// Adds the part of `set` inside [first, last) to the plan's run pool, relative to `first`. `at` is the first run that
// can reach the interval and moves on, so a sweep over intervals in order is linear.
inline page_read::run_slice clip(access_plan& plan, index_view set, std::size_t& at,
                                 std::uint32_t first, std::uint32_t last) {
  const auto runs = set.runs();
  page_read::run_slice slice = plan.begin_slice();
  while (at < runs.size() && runs[at].last <= first) {
    ++at;
  }
  for (std::size_t i = at; i < runs.size() && runs[i].first < last; ++i) {
    plan.add_run(slice, std::max(runs[i].first, first) - first,
                 std::min(runs[i].last, last) - first);
  }
  return slice;
}

// Adds the pages of stream s that hold a wanted (token, dim), with tokens restricted to [from, to); `from` starts a tile.
inline void add_stream(access_plan& plan, const layout::head_pages& head, stream s,
                       index_view tokens, index_view dims, std::uint32_t from, std::uint32_t to,
                       std::size_t& token_at) {
  const layout::tile& tile = head.tiles.of(s);
  const layout::stream_pages& pages = head.of(s);
  assert(from % tile.tokens == 0);
  for (std::uint32_t token_tile = from / tile.tokens; token_tile * tile.tokens < to; ++token_tile) {
    const std::uint32_t first = token_tile * tile.tokens;
    const page_read::run_slice wanted_tokens =
        clip(plan, tokens, token_at, first, std::min(first + tile.tokens, to));
    if (wanted_tokens.count == 0) {
      continue;
    }
    std::size_t dim_at = 0;
    for (std::uint32_t dim_tile = 0; dim_tile < pages.dim_tiles; ++dim_tile) {
      const auto wanted_dims =
          clip(plan, dims, dim_at, dim_tile * tile.dims, (dim_tile + 1) * tile.dims);
      if (wanted_dims.count == 0) {
        continue;
      }
      const bool buffered = first >= pages.sealed_tokens;
      plan.add({.kind = s,
                .token_tile = token_tile,
                .dim_tile = dim_tile,
                .page = buffered ? no_page : pages.page(token_tile, dim_tile),
                .buffered = buffered,
                .tokens = wanted_tokens,
                .dims = wanted_dims});
    }
  }
}

}  // namespace detail

// score_dims: the pages of K that hold `dims` of `tokens`. From the dim-indexed copy if there is one; otherwise every
// token-indexed page with a wanted token, of which the filter passes only the wanted dims.
inline void plan_score_dims(const layout::head_pages& head, index_view tokens, index_view dims,
                            access_plan& plan) {
  plan.clear();
  const stream s = head.tiles.k_by_dim.stored() ? stream::k_by_dim : stream::k_by_token;
  std::size_t token_at = 0;
  detail::add_stream(plan, head, s, tokens, dims, head.first_of_tile(s), head.tokens, token_at);
}

// fold: K and V of `tokens`, all dims. From the token-indexed copy of K if there is one. Each K tile comes first, then
// the V pages under it, so that a path can fold tile by tile in the order of the plan.
inline void plan_fold(const layout::head_pages& head, index_view tokens, access_plan& plan) {
  plan.clear();
  const stream k = head.tiles.k_by_token.stored() ? stream::k_by_token : stream::k_by_dim;
  const layout::tile& k_tile = head.tiles.of(k);
  const layout::tile& v_tile = head.tiles.v_by_token;
  const auto all = [](std::uint32_t dims, index_run& run) {
    run = {0, dims};
    return index_view({&run, 1}, dims);
  };
  index_run k_run, v_run;
  const index_view k_dims = all(head.of(k).dim_tiles * k_tile.dims, k_run);
  const index_view v_dims = all(head.of(stream::v_by_token).dim_tiles * v_tile.dims, v_run);
  std::size_t k_at = 0;
  std::size_t v_at = 0;
  for (std::uint32_t first = head.first_of_tile(k); first < head.tokens; first += k_tile.tokens) {
    const std::uint32_t last = std::min(first + k_tile.tokens, head.tokens);
    detail::add_stream(plan, head, k, tokens, k_dims, first, last, k_at);
    detail::add_stream(plan, head, stream::v_by_token, tokens, v_dims, first, last, v_at);
  }
}

}  // namespace instinfer::attention
