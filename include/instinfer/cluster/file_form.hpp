#pragma once
// Which bytes of a cache file belong to which head and tokens. store/sequences/cache_file.hpp
// writes files in this order.

#include <algorithm>
#include <cstdint>

#include "instinfer/layout/concepts.hpp"
#include "instinfer/store/layer/extents.hpp"
#include "instinfer/store/layer/page_grid.hpp"
#include "instinfer/store/sequences/capacity_checks.hpp"
#include "instinfer/summaries/concepts.hpp"

namespace instinfer::cluster {

// Base is the engine whose files these are. store::file_description takes the form for a cache.
template <class Base>
class file_form {
  using grid = store::page_grid<typename Base::format::padded>;

 public:
  using format = typename Base::format;
  using summary_states = typename Base::cache_type::summary_states;

  file_form(const model_shape& shape, const layout::tiling& tiles) : shape_{shape}, tiles_{tiles} {}

  const model_shape& shape() const { return shape_; }
  const layout::tiling& tiles() const { return tiles_; }
  std::uint32_t page_bytes() const { return Base::design_type::layout_policy::page_bytes; }

  // A layer with live tokens at positions [first, end), which are numbered from `base` on.
  store::layer_extent extent(std::uint64_t first, std::uint64_t end, std::uint64_t base) const {
    store::layer_extent e{.first = static_cast<std::uint32_t>(first - base),
                          .tokens = static_cast<std::uint32_t>(end - base),
                          .base = base};
    for_each_stream([&](const grid& pages) {
      e.pages +=
          static_cast<std::uint64_t>(shape_.kv_heads) * pages.pages_holding(e.first, e.tokens);
    });
    return e;
  }

  // A layer can number its tokens from multiples of this on; 0: only from position 0 on.
  std::uint64_t base_multiple() const {
    std::uint64_t all = attention::rebase_tokens<summary_states>;
    for_each_stream(
        [&](const grid& pages) { all = attention::common_multiple(all, pages.tile.tokens); });
    return all;
  }
  // The last such position that is not after `first`.
  std::uint64_t base_before(std::uint64_t first) const {
    const std::uint64_t all = base_multiple();
    return all == 0 ? 0 : first / all * all;
  }

  // The pages of a layer, without its summaries. Calls visit(h, first, end, bytes) for each piece
  // of the file, in its order: `bytes` bytes of KV head h, of the tokens at positions [first, end).
  void each_piece(const store::layer_extent& of, auto&& visit) const {
    const auto heads = static_cast<std::uint32_t>(shape_.kv_heads);
    for_each_stream([&](const grid& pages) {
      const std::uint32_t tokens = pages.tile.tokens;
      const std::uint32_t sealed = of.tokens / tokens;
      const std::uint64_t open = of.base + std::uint64_t{sealed} * tokens;
      for (std::uint32_t h = 0; h < heads; ++h) {
        for (std::uint32_t dim_tile = 0; dim_tile < pages.dim_tiles(); ++dim_tile) {
          for (std::uint32_t t = of.first / tokens; t < sealed; ++t) {
            const std::uint64_t first = of.base + std::uint64_t{t} * tokens;
            visit(h, first, first + tokens, pages.used_bytes());
          }
        }
      }
      for (std::uint32_t h = 0; of.tokens % tokens > 0 && h < heads; ++h) {
        visit(h, open, of.base + of.tokens, pages.open_bytes_of_all(of.tokens % tokens));
      }
    });
  }

 private:
  // visit(pages of one head) for each stream that has pages.
  void for_each_stream(auto&& visit) const {
    for (const stream s : {stream::k_by_token, stream::k_by_dim, stream::v_by_token}) {
      if (tiles_.has_pages(s)) {
        visit(grid{.kind = s,
                   .tile = tiles_.of(s),
                   .page_bytes = page_bytes(),
                   .kv_heads = 1,
                   .guest = tiles_.guest_of(s)});
      }
    }
  }

  model_shape shape_;
  layout::tiling tiles_;
};

}  // namespace instinfer::cluster
