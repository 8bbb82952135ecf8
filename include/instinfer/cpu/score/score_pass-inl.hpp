#pragma once
// The score pass of SparQ and SparF on the CPU path: logits from the selected dims. A team shares
// the tokens.

#include <cmath>
#include <vector>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/core/access_plan.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/core/team.hpp"
#include "instinfer/cpu/fold/any_tile-inl.hpp"
#include "instinfer/cpu/fold/plan_parts-inl.hpp"
#include "instinfer/cpu/score/column_score-inl.hpp"
#include "instinfer/cpu/softmax-inl.hpp"
#include "instinfer/layout/head_pages.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// The tile that a kernel works on, and the next tile, which it prefetches at the same time.
template <class Storage>
struct column_blocks {
  column_block<Storage> now;
  column_block<Storage> next;
};

template <class Format>
class score_pass {
 public:
  using element = typename Format::element;

  // logits [group, tokens]: q[dims] . K[:, dims] at SparQ's temperature.
  template <class Pages>
  void score(const attention::query_group& q, index_view dims, index_view tokens,
             const access_plan& plan, const layout::head_pages& head, const Pages& pages,
             const team& with, std::span<float> logits) {
    // Products are [group, stride], starting at the first token of the first tile. If all of these
    // tokens are wanted, they are computed in place.
    const std::uint32_t base =
        plan.reads().empty() ? head.first : head.first_of_tile(plan.reads().front().kind);
    const std::size_t stride = head.tokens - base;
    const bool in_place = tokens.count() == stride;
    if (!in_place) {
      resize_scratch(products_, q.group * stride);
    }
    float* products = in_place ? logits.data() : products_.data();
    if (!plan.reads().empty() && in_columns<Format>(head.tiles.of(plan.reads().front().kind))) {
      const std::size_t sealed = sealed_reads<Format>(plan);
      score_by_columns(q, plan, 0, sealed, pages, with, columns_, base, products, stride);
      if constexpr (!Format::plain) {
        score_by_columns(q, plan, sealed, plan.reads().size(), pages, team{}, open_columns_, base,
                         products, stride);
      }
    } else {
      std::fill_n(products, q.group * stride, 0.0f);
      const auto ahead = pages.ahead(plan);
      for (const page_read& read : plan.reads()) {
        const auto page = ahead(read);
        score_any(page, plan.tokens(read), plan.dims(read), q.group,
                  q.values.data() + std::size_t{read.dim_tile} * page.shape.dims, Format::k_dim,
                  products + (std::size_t{read.token_tile} * page.shape.tokens - base), stride);
      }
    }
    with.for_each_part(with.parts(), [&](std::uint32_t part) {
      for (std::uint32_t h = part; h < q.group; h += with.parts()) {
        float* row = logits.data() + std::size_t{h} * tokens.count();
        float* to = row;
        for (const index_run run : tokens.runs()) {
          const float* from = products + h * stride + (run.first - base);
          to = in_place ? to : std::copy_n(from, run.size(), to);
        }
        scale_logits(row, tokens.count(),
                     q.logits.scale_for(Format::k_dim) / std::sqrt(coverage(q.head(h), dims)),
                     q.logits.soft_cap);
        if (q.bias) {
          add_bias(q, h, tokens, {row, tokens.count()});
        }
      }
    });
  }

 private:
  // |q[i]|_1 / |q|_1: the share of the query in the selected dims; 1 for a zero query.
  static float coverage(std::span<const float> q, index_view dims) {
    float all = 0.0f;
    float chosen = 0.0f;
    for (const float x : q) {
      all += std::abs(x);
    }
    dims.for_each([&](std::uint32_t i) { chosen += std::abs(q[i]); });
    return all > 0.0f && chosen > 0.0f ? chosen / all : 1.0f;
  }

  // Scores reads [first, last) of the plan, all stored like the blocks. Each part of the team has
  // its own tiles.
  template <class Pages, class Storage>
  void score_by_columns(const attention::query_group& q, const access_plan& plan, std::size_t first,
                        std::size_t last_read, const Pages& pages, const team& with,
                        std::vector<column_blocks<Storage>>& columns, std::uint32_t base,
                        float* products, std::size_t stride) {
    if (columns.size() < with.parts()) {
      columns.resize(with.parts());
    }
    cut_plan(plan, first, last_read, with.parts(), cuts_);
    with.for_each_part(with.parts(), [&](std::uint32_t part) {
      std::size_t at = cuts_[part];
      const std::size_t last = cuts_[part + 1];
      const auto ahead =
          pages.ahead(plan, at, last, [&] { return reads_of_two_tiles(plan, at, last); });
      column_block<Storage>* block = &columns[part].now;
      column_block<Storage>* next = &columns[part].next;
      for (block->fill(plan, at, last, ahead); !block->columns.empty(); std::swap(block, next)) {
        next->fill(plan, at, last, ahead);
        for (const index_run run : block->tokens.runs()) {
          for_head_blocks(q.group, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
            score_columns<Heads, Storage>(
                block->columns, run, q.values.data() + std::size_t{h} * Format::k_dim,
                Format::k_dim, products + h * stride + (block->first_token - base), stride,
                h == 0 ? std::span<const column<Storage>>(next->columns)
                       : std::span<const column<Storage>>());
          });
        }
      }
    });
  }

  std::vector<float> products_;  // [group, tokens from the first tile on]
  std::vector<column_blocks<typename Format::storage>> columns_;  // [parts]
  // For open pages, which a codec has not encoded yet.
  std::vector<column_blocks<typename Format::open::storage>> open_columns_;
  std::vector<std::size_t> cuts_;  // [parts + 1]
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
