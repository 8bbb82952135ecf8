#pragma once
// The fold for layouts with pages that have no whole rows: tile by tile, as a plan lists a K tile
// before its V pages.

#include <limits>
#include <span>
#include <vector>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/core/access_plan.hpp"
#include "instinfer/cpu/fold/any_tile-inl.hpp"
#include "instinfer/cpu/fold/group_state.hpp"
#include "instinfer/cpu/softmax-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Turns the wanted products [group, stride] of the tile that begins with token `first` into weights
// 2^-shift exp(logit - max), with the maximum and the sum of each head in its state.
inline void weigh_tile(std::span<float> products, const attention::query_group& q, int k_dim,
                       std::uint32_t first, index_view wanted, std::size_t stride, group_sums& to) {
  const float scale = q.logits.scale_for(k_dim);
  for (std::uint32_t h = 0; h < q.group; ++h) {
    float* row = products.data() + h * stride;
    float max = -std::numeric_limits<float>::infinity();
    for (const index_run run : wanted.runs()) {
      float most = scale_logits(row + run.first, run.size(), scale, q.logits.soft_cap);
      if (q.bias) {
        const index_run tokens{first + run.first, first + run.last};
        add_bias(q, h, {{&tokens, 1}, tokens.size()}, {row + run.first, run.size()});
        most = max_of(row + run.first, run.size());
      }
      max = std::max(max, most);
    }
    to.state(h).max = max;
    for (const index_run run : wanted.runs()) {
      to.state(h).sum +=
          exponentials(row + run.first, row + run.first, run.size(), max, to.shift());
    }
  }
}

template <class Format>
class tile_fold {
 public:
  // Folds the reads of the plan from read `i` on.
  template <class Pages>
  void fold(const attention::query_group& q, const access_plan& plan, std::size_t i,
            const layout::head_pages& head, const Pages& pages, group_state& to) {
    const auto reads = plan.reads();
    const auto ahead = pages.ahead(plan, i, reads.size(), [] { return std::size_t{1}; });
    while (i < reads.size()) {
      const std::uint32_t tile_first = first_token(reads[i], head);
      const std::uint32_t tile_tokens = head.tiles.of(reads[i].kind).tokens;
      products_.assign(std::size_t{q.group} * tile_tokens, 0.0f);
      sums_.reset(q.group, Format::v_dim, tile_tokens);
      const index_view wanted = plan.tokens(reads[i]);
      for (; i < reads.size() && reads[i].kind != stream::v_by_token; ++i) {
        const auto page = ahead(reads[i]);
        score_any(page, wanted, plan.dims(reads[i]), q.group,
                  q.values.data() + std::size_t{reads[i].dim_tile} * page.shape.dims, Format::k_dim,
                  products_.data(), tile_tokens);
      }
      weigh_tile(products_, q, Format::k_dim, tile_first, wanted, tile_tokens, sums_);
      for (; i < reads.size() && reads[i].kind == stream::v_by_token; ++i) {
        const auto page = ahead(reads[i]);
        fold_any(page, plan.tokens(reads[i]), q.group,
                 products_.data() + (first_token(reads[i], head) - tile_first), tile_tokens,
                 sums_.row(0).data() + std::size_t{reads[i].dim_tile} * page.shape.dims,
                 Format::v_dim);
      }
      to.merge(sums_, q.first_head);
    }
  }

 private:
  static std::uint32_t first_token(const page_read& read, const layout::head_pages& head) {
    return read.token_tile * head.tiles.of(read.kind).tokens;
  }

  std::vector<float> products_;  // [group, tokens of a tile]
  group_sums sums_;              // of a tile
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
