#pragma once
// The planning functions: one per reading operation of the attention machine, for all paths.
// The page filter of InstInfer Alg. 1 (steps 1) is the loop over tiles. The entry filter (steps 2)
// is the list of runs of each page.

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/core/shape.hpp"
#include "instinfer/layout/head_pages.hpp"

namespace instinfer::attention {

namespace detail {

// Cuts a set into slices of a plan's run pool, one interval after the other in ascending order.
// Intervals without a gap share one slice; they are most of a dense plan.
class run_clipper {
 public:
  run_clipper(access_plan& plan, index_view set) : plan_{plan}, runs_{set.runs()} {}

  // The first index of the set that is at least `first`; the largest number if the set has none.
  std::uint32_t next(std::uint32_t first) {
    while (at_ < runs_.size() && runs_[at_].last <= first) {
      ++at_;
    }
    return at_ < runs_.size() ? std::max(runs_[at_].first, first)
                              : std::numeric_limits<std::uint32_t>::max();
  }

  // The part of the set inside [first, last), relative to `first`. A pass over all intervals is
  // linear in runs and intervals.
  page_read::run_slice operator()(std::uint32_t first, std::uint32_t last) {
    next(first);
    const bool whole = at_ < runs_.size() && runs_[at_].first <= first && last <= runs_[at_].last;
    if (whole && whole_.count == last - first) {
      return whole_;
    }
    page_read::run_slice slice = plan_.begin_slice();
    for (std::size_t i = at_; i < runs_.size() && runs_[i].first < last; ++i) {
      plan_.add_run(slice, std::max(runs_[i].first, first) - first,
                    std::min(runs_[i].last, last) - first);
    }
    if (whole) {
      whole_ = slice;
    }
    return slice;
  }

 private:
  access_plan& plan_;
  std::span<const index_run> runs_;
  std::size_t at_ = 0;          // the first run that can reach the next interval
  page_read::run_slice whole_;  // the last interval without a gap
};

// Plans the pages of one stream that contain wanted dims.
class stream_planner {
 public:
  stream_planner(access_plan& plan, const layout::head_pages& head, stream s, index_view dims)
      : plan_{plan},
        pages_{head.of(s)},
        sealed_tiles_{pages_.sealed_tokens / head.tiles.of(s).tokens},
        kind_{s} {
    assert(pages_.dim_tiles <= dim_tiles_.size());
    run_clipper clip(plan, dims);
    const std::uint32_t tile_dims = head.tiles.of(s).dims;
    for (std::uint32_t dim_tile = 0; dim_tile < pages_.dim_tiles; ++dim_tile) {
      const auto slice = clip(dim_tile * tile_dims, (dim_tile + 1) * tile_dims);
      if (slice.count > 0) {
        dim_tiles_[wanted_dim_tiles_++] = {dim_tile, slice.begin, slice.end, slice.count};
      }
    }
  }

  // Adds the pages of a tile for its wanted tokens, if it has any. Shares: what the read before has
  // read already.
  template <sharing Shares = sharing::nothing>
  [[gnu::always_inline]] void add(std::uint32_t token_tile, page_read::run_slice tokens,
                                  residence from = residence::flash) {
    const bool buffered = token_tile >= sealed_tiles_;
    if (token_tile + tiles_ahead < sealed_tiles_) {
      pages_.prefetch(token_tile + tiles_ahead, 0);
    }
    for (std::uint32_t i = 0; tokens.count > 0 && i < wanted_dim_tiles_; ++i) {
      const wanted_dims& dims = dim_tiles_[i];
      plan_.add({.kind = kind_,
                 .token_tile = token_tile,
                 .dim_tile = dims.tile,
                 .page = buffered ? no_page : pages_.page(token_tile, dims.tile),
                 .buffered = buffered,
                 .from = from,
                 .shares = Shares,
                 .tokens = tokens,
                 .dims = {dims.begin, dims.end, dims.count}});
    }
  }

 private:
  // No initial values: initialising an array of 256 of these takes 0.2 us.
  struct wanted_dims {
    std::uint32_t tile, begin, end, count;
  };

  // Prefetch distance: a table entry arrives before its tile is planned, for dense plans and for
  // every second tile.
  static constexpr std::uint32_t tiles_ahead = 16;

  access_plan& plan_;
  // A copy, so that the compiler knows that writes to the plan cannot change its members. Together
  // with counting tiles in for_each_tile instead of dividing, this takes 5 ns a page instead of 6.
  const layout::stream_pages pages_;
  std::uint32_t sealed_tiles_;
  stream kind_;
  std::uint32_t wanted_dim_tiles_ = 0;
  std::array<wanted_dims, largest_head_dim> dim_tiles_;
};

// Calls f(tile, first, last) for every tile of tokens [first, last) that contains any index of the
// clipper's set, among tokens [begin, end). It jumps from one wanted token to the next, so that few
// branches are hard to predict.
template <class F>
[[gnu::always_inline]] inline void for_each_tile(run_clipper& clip, std::uint32_t begin,
                                                 std::uint32_t end, std::uint32_t tile_tokens,
                                                 F&& f) {
  std::uint32_t tile = begin / tile_tokens;
  for (std::uint32_t first = begin; first < end; first += tile_tokens, ++tile) {
    if (const std::uint32_t next = clip.next(first); next != first) {
      if (next >= end) {
        return;
      }
      tile = next / tile_tokens;
      first = tile * tile_tokens;
    }
    f(tile, first, std::min(first + tile_tokens, end));
  }
}

}  // namespace detail

// K of `tokens`, some dims: from the dim-indexed copy if there is one.
constexpr stream keys_by_dim(const layout::head_pages& head) {
  return head.tiles.k_by_dim.stored() ? stream::k_by_dim : stream::k_by_token;
}

// score_dims: the pages of K with `dims` of `tokens`. Uses the dim-indexed copy if it is stored.
// Otherwise it reads every token-indexed page with a wanted token, and the filter passes only the
// wanted dims.
[[gnu::noinline]] inline void plan_score_dims(const layout::head_pages& head, index_view tokens,
                                              index_view dims, access_plan& plan) {
  plan.clear();
  const stream s = keys_by_dim(head);
  detail::stream_planner pages(plan, head, s, dims);
  detail::run_clipper clip(plan, tokens);
  detail::for_each_tile(clip, head.first_of_tile(s), head.tokens, head.tiles.of(s).tokens,
                        [&](std::uint32_t tile, std::uint32_t first, std::uint32_t last) {
                          pages.add(tile, clip(first, last));
                        });
}

// K of `tokens`, all dims: from the token-indexed copy if it is stored.
constexpr stream keys_by_row(const layout::head_pages& head) {
  return head.tiles.k_by_token.stored() ? stream::k_by_token : stream::k_by_dim;
}

// Gives the residence of a tile of K from the first token of the tile.
template <class T>
concept ResidenceOfTile = requires(const T& t, std::uint32_t first_token) {
  { t(first_token) } -> std::convertible_to<residence>;
};

struct all_from {
  residence from = residence::flash;
  residence operator()(std::uint32_t /*first_token*/) const { return from; }
};

// score_tokens: all dims of K of `tokens`. fold_scored: all dims of V.
[[gnu::noinline]] inline void plan_rows(const layout::head_pages& head, stream s, index_view tokens,
                                        access_plan& plan, residence from = residence::flash) {
  plan.clear();
  const index_run all{0, head.of(s).dim_tiles * head.tiles.of(s).dims};
  detail::stream_planner pages(plan, head, s, {{&all, 1}, all.size()});
  detail::run_clipper clip(plan, tokens);
  detail::for_each_tile(clip, head.first_of_tile(s), head.tokens, head.tiles.of(s).tokens,
                        [&](std::uint32_t tile, std::uint32_t first, std::uint32_t last) {
                          pages.add(tile, clip(first, last), from);
                        });
}

// fold: K and V of `tokens`, all dims. Uses the token-indexed copy of K if it is stored. Each K
// tile comes first, then its V pages, so that a path can fold tile by tile in the order of the
// plan. A page that holds both counts once.
template <ResidenceOfTile Where = all_from>
[[gnu::noinline]] void plan_fold(const layout::head_pages& head, index_view tokens,
                                 access_plan& plan, Where&& where = {}) {
  plan.clear();
  const stream k = keys_by_row(head);
  const layout::tile& k_tile = head.tiles.of(k);
  const layout::tile& v_tile = head.tiles.v_by_token;
  const index_run all_k{0, head.of(k).dim_tiles * k_tile.dims};
  const index_run all_v{0, head.of(stream::v_by_token).dim_tiles * v_tile.dims};
  detail::stream_planner k_pages(plan, head, k, {{&all_k, 1}, all_k.size()});
  detail::stream_planner v_pages(plan, head, stream::v_by_token, {{&all_v, 1}, all_v.size()});
  detail::run_clipper k_clip(plan, tokens);
  detail::run_clipper v_clip(plan, tokens);
  const bool alike = k_tile.tokens == v_tile.tokens;
  // A loop for each kind of sharing. A kind that the loop looks up would take 4 ns a page.
  const auto add_shared = [&]<sharing Shares>() {
    detail::for_each_tile(k_clip, head.first_of_tile(k), head.tokens, k_tile.tokens,
                          [&](std::uint32_t tile, std::uint32_t first, std::uint32_t last) {
                            const page_read::run_slice wanted = k_clip(first, last);
                            const residence from = where(first);
                            k_pages.add(tile, wanted, from);
                            v_pages.template add<Shares>(tile, wanted, from);
                          });
  };
  if (head.tiles.v_shares == sharing::page) {
    add_shared.template operator()<sharing::page>();
    return;
  }
  if (head.tiles.v_shares == sharing::entries) {
    add_shared.template operator()<sharing::entries>();
    return;
  }
  const auto add = [&](std::uint32_t tile, std::uint32_t first, std::uint32_t last) {
    const page_read::run_slice wanted = k_clip(first, last);
    const residence from = where(first);
    k_pages.add(tile, wanted, from);
    if (alike) {
      v_pages.add(tile, wanted, from);
      return;
    }
    for (std::uint32_t v = first; v < last; v += v_tile.tokens) {
      v_pages.add(v / v_tile.tokens, v_clip(v, std::min(v + v_tile.tokens, last)), from);
    }
  };
  detail::for_each_tile(k_clip, head.first_of_tile(k), head.tokens, k_tile.tokens, add);
}

}  // namespace instinfer::attention
