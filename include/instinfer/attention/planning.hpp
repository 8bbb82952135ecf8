#pragma once
// The planning functions: one per reading operation of the attention machine, shared by every path. The page filter of
// InstInfer Alg. 1 (steps 1) is the loop over tiles; the entry filter (steps 2) is the run lists of each page.

#include <algorithm>
#include <array>
#include <cassert>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/layout/head_pages.hpp"

namespace instinfer::attention {

namespace detail {

// Plans the pages of one stream that hold wanted tokens and dims, interval by interval of tokens.
class stream_planner {
 public:
  stream_planner(access_plan& plan, const layout::head_pages& head, stream s, index_view tokens,
                 index_view dims)
      : plan_{plan}, tile_{head.tiles.of(s)}, pages_{head.of(s)}, kind_{s}, tokens_{tokens} {
    assert(pages_.dim_tiles <= dim_tiles_.size());
    for (std::uint32_t dim_tile = 0, at = 0; dim_tile < pages_.dim_tiles; ++dim_tile) {
      const auto slice = clip(dims, at, dim_tile * tile_.dims, (dim_tile + 1) * tile_.dims);
      if (slice.count > 0) {
        dim_tiles_[wanted_dim_tiles_++] = {dim_tile, slice};
      }
    }
  }

  // Adds the pages with wanted tokens in [from, to), of which `from` starts a tile. Intervals come in order.
  void add(std::uint32_t from, std::uint32_t to) {
    assert(from % tile_.tokens == 0);
    std::uint32_t token_tile = from / tile_.tokens;
    for (std::uint32_t first = from; first < to; first += tile_.tokens, ++token_tile) {
      const page_read::run_slice wanted =
          clip(tokens_, token_at_, first, std::min(first + tile_.tokens, to));
      for (std::uint32_t i = 0; wanted.count > 0 && i < wanted_dim_tiles_; ++i) {
        const bool buffered = first >= pages_.sealed_tokens;
        const std::uint32_t dim_tile = dim_tiles_[i].index;
        plan_.add({.kind = kind_,
                   .token_tile = token_tile,
                   .dim_tile = dim_tile,
                   .page = buffered ? no_page : pages_.page(token_tile, dim_tile),
                   .buffered = buffered,
                   .tokens = wanted,
                   .dims = dim_tiles_[i].dims});
      }
    }
  }

 private:
  struct wanted_dims {
    std::uint32_t index;
    page_read::run_slice dims;
  };

  // The part of `set` inside [first, last), relative to `first`, as a slice of the plan's run pool. `at` is the first run
  // that can reach the interval and moves on, so a sweep over intervals in order is linear. Intervals without a gap share
  // one slice: most of a dense plan.
  page_read::run_slice clip(index_view set, std::uint32_t& at, std::uint32_t first,
                            std::uint32_t last) {
    const auto runs = set.runs();
    while (at < runs.size() && runs[at].last <= first) {
      ++at;
    }
    const bool whole = at < runs.size() && runs[at].first <= first && last <= runs[at].last;
    if (whole && whole_.count == last - first) {
      return whole_;
    }
    page_read::run_slice slice = plan_.begin_slice();
    for (std::size_t i = at; i < runs.size() && runs[i].first < last; ++i) {
      plan_.add_run(slice, std::max(runs[i].first, first) - first,
                    std::min(runs[i].last, last) - first);
    }
    if (whole) {
      whole_ = slice;
    }
    return slice;
  }

  access_plan& plan_;
  const layout::tile& tile_;
  const layout::stream_pages& pages_;
  stream kind_;
  index_view tokens_;
  std::uint32_t token_at_ = 0;
  page_read::run_slice whole_;  // the last interval without a gap
  std::uint32_t wanted_dim_tiles_ = 0;
  std::array<wanted_dims, 256> dim_tiles_;  // head sizes go up to 256
};

}  // namespace detail

// score_dims: the pages of K that hold `dims` of `tokens`. From the dim-indexed copy if there is one; otherwise every
// token-indexed page with a wanted token, of which the filter passes only the wanted dims.
inline void plan_score_dims(const layout::head_pages& head, index_view tokens, index_view dims,
                            access_plan& plan) {
  plan.clear();
  const stream s = head.tiles.k_by_dim.stored() ? stream::k_by_dim : stream::k_by_token;
  detail::stream_planner(plan, head, s, tokens, dims).add(head.first_of_tile(s), head.tokens);
}

// fold: K and V of `tokens`, all dims. From the token-indexed copy of K if there is one. Each K tile comes first, then
// the V pages under it, so that a path can fold tile by tile in the order of the plan.
inline void plan_fold(const layout::head_pages& head, index_view tokens, access_plan& plan) {
  plan.clear();
  const stream k = head.tiles.k_by_token.stored() ? stream::k_by_token : stream::k_by_dim;
  const layout::tile& k_tile = head.tiles.of(k);
  const layout::tile& v_tile = head.tiles.v_by_token;
  const index_run all_k{0, head.of(k).dim_tiles * k_tile.dims};
  const index_run all_v{0, head.of(stream::v_by_token).dim_tiles * v_tile.dims};
  detail::stream_planner k_pages(plan, head, k, tokens, {{&all_k, 1}, all_k.size()});
  detail::stream_planner v_pages(plan, head, stream::v_by_token, tokens,
                                 {{&all_v, 1}, all_v.size()});
  for (std::uint32_t first = head.first_of_tile(k); first < head.tokens; first += k_tile.tokens) {
    const std::uint32_t last = std::min(first + k_tile.tokens, head.tokens);
    k_pages.add(first, last);
    v_pages.add(first, last);
  }
}

}  // namespace instinfer::attention
