#pragma once
// The CPU path, the "in-storage core": fp32 accumulation, SIMD over Highway, pages folded as they lie in the store.

#include <cmath>
#include <deque>
#include <variant>
#include <vector>

#include "instinfer/attention/machine.hpp"
#include "instinfer/cpu/any_tile-inl.hpp"
#include "instinfer/cpu/column_score-inl.hpp"
#include "instinfer/cpu/row_fold-inl.hpp"
#include "instinfer/cpu/top_k-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// The arithmetic of one worker; see reference/path.hpp for the same operations in the paper's words.
template <class Format>
class arithmetic {
 public:
  using format = Format;
  using element = typename Format::element;

  struct scores {
    index_view tokens;
    std::span<const float> probabilities;  // [group, tokens]
  };

  void begin(const attention::query_group& q, const layout::head_pages& /*head*/) {
    group_ = q.group;
    state_.reset(group_, Format::v_dim);
    kept_.assign(group_, 1.0f);
    mean_.assign(Format::v_dim, 0.0f);
    scores_used_ = 0;
  }

  void top_dims(const attention::query_group& q, std::uint32_t r, index_set& chosen) {
    rank_.assign(Format::k_dim, 0.0f);
    for (std::size_t i = 0; i < q.values.size(); ++i) {
      rank_[i % Format::k_dim] += std::abs(q.values[i]);
    }
    top_k_of_many(rank_, r, chosen, top_k_);
  }

  template <class Pages>
  scores score_dims(const attention::query_group& q, index_view dims, index_view tokens,
                    const access_plan& plan, const layout::head_pages& head, const Pages& pages) {
    // products_ [group, tokens from `base` on]
    const std::uint32_t base =
        plan.reads().empty() ? head.first : head.first_of_tile(plan.reads().front().kind);
    const std::size_t stride = head.tokens - base;
    resize_scratch(products_, group_ * stride);
    if (!plan.reads().empty() && in_columns(head.tiles.of(plan.reads().front().kind))) {
      const std::size_t sealed = sealed_reads(plan);
      score_by_columns(q, plan, 0, sealed, pages, columns_, base, stride);
      if constexpr (!Format::plain) {
        score_by_columns(q, plan, sealed, plan.reads().size(), pages, open_columns_, base, stride);
      }
    } else {
      std::ranges::fill(products_, 0.0f);
      for (const page_read& read : plan.reads()) {
        const auto page = pages(read);
        score_any(page, plan.tokens(read), plan.dims(read), group_,
                  q.values.data() + std::size_t{read.dim_tile} * page.shape.dims, Format::k_dim,
                  products_.data() + (first_token(read, head) - base), stride);
      }
    }
    std::vector<float>& probabilities = next_scores();
    resize_scratch(probabilities, std::size_t{group_} * tokens.count());
    for (std::uint32_t h = 0; h < group_; ++h) {
      float* row = probabilities.data() + std::size_t{h} * tokens.count();
      float* to = row;
      for (const index_run run : tokens.runs()) {
        to = std::copy_n(products_.data() + h * stride + (run.first - base), run.size(), to);
      }
      const float scale = q.logits.scale_for(Format::k_dim) / std::sqrt(coverage(q.head(h), dims));
      const float max = scale_logits(row, tokens.count(), scale, q.logits.soft_cap);
      if (const float sum = exponentials(row, tokens.count(), max); sum > 0.0f) {
        multiply(row, tokens.count(), 1.0f / sum);
      }
    }
    return {tokens, probabilities};
  }

  void top_tokens(const scores& s, std::uint32_t k, std::uint32_t local, index_set& chosen) {
    const std::size_t n = s.tokens.count();
    resize_scratch(rank_, n);
    std::ranges::fill(rank_, 0.0f);
    for (std::uint32_t h = 0; h < group_; ++h) {
      accumulate(rank_.data(), s.probabilities.data() + h * n, n);
    }
    std::fill(rank_.end() - local, rank_.end(), std::numeric_limits<float>::infinity());
    positions_.clear();
    top_k_of_many(rank_, k, positions_, top_k_);
    add_at_positions(s.tokens, positions_, chosen);
  }

  template <class Pages>
  void fold(const attention::query_group& q, const access_plan& plan,
            const layout::head_pages& head, const Pages& pages) {
    if (in_rows(head.tiles.k_by_token, Format::k_dim) &&
        in_rows(head.tiles.v_by_token, Format::v_dim)) {
      fold_by_rows(q, plan, head, pages);
    } else {
      fold_by_tiles(q, plan, 0, head, pages);
    }
  }

  template <class Mean>
  void blend_mean(const scores& s, index_view tokens, const Mean& mean) {
    std::fill(kept_.begin(), kept_.end(), 0.0f);
    for_each_position(s.tokens, tokens, [&](std::uint32_t, std::uint32_t position) {
      for (std::uint32_t h = 0; h < group_; ++h) {
        kept_[h] += s.probabilities[std::size_t{h} * s.tokens.count() + position];
      }
    });
    for (std::size_t i = 0; i < mean_.size(); ++i) {
      mean_[i] = static_cast<float>(mean[i]);
    }
  }

  void finish(std::span<float> out) {
    for (std::uint32_t h = 0; h < group_; ++h) {
      const std::span<float> o = state_.output(h);
      normalise(state_.state(h), o);
      for (std::size_t i = 0; i < o.size(); ++i) {
        out[h * o.size() + i] = kept_[h] * o[i] + (1.0f - kept_[h]) * mean_[i];
      }
    }
  }

 private:
  // Whole rows, or columns, that begin at a unit of the storage.
  static bool in_rows(const layout::tile& tile, std::uint32_t head_dim) {
    return tile.dim_stride == 1 && tile.dims == head_dim &&
           tile.token_stride % unit_elements<typename Format::unit> == 0;
  }
  static bool in_columns(const layout::tile& tile) {
    return tile.token_stride == 1 && tile.dim_stride % unit_elements<typename Format::unit> == 0;
  }

  // Reads before the first page in the group buffer, which a codec has not coded yet; all reads where there is none.
  static std::size_t sealed_reads(const access_plan& plan) {
    const auto reads = plan.reads();
    if constexpr (Format::plain) {
      return reads.size();
    } else {
      return static_cast<std::size_t>(std::ranges::find_if(reads, &page_read::buffered) -
                                      reads.begin());
    }
  }

  static std::uint32_t first_token(const page_read& read, const layout::head_pages& head) {
    return read.token_tile * head.tiles.of(read.kind).tokens;
  }

  // |q[i]|_1 / |q|_1: the share of the query that the dims cover; 1 for a zero query.
  static float coverage(std::span<const float> q, index_view dims) {
    float all = 0.0f;
    float chosen = 0.0f;
    for (const float x : q) {
      all += std::abs(x);
    }
    dims.for_each([&](std::uint32_t i) { chosen += std::abs(q[i]); });
    return all > 0.0f && chosen > 0.0f ? chosen / all : 1.0f;
  }

  std::vector<float>& next_scores() {
    if (scores_used_ == scores_.size()) {
      scores_.emplace_back();
    }
    return scores_[scores_used_++];
  }

  // Reads [at, last) of the plan, all stored as the blocks are.
  template <class Pages, class Storage>
  void score_by_columns(const attention::query_group& q, const access_plan& plan, std::size_t at,
                        std::size_t last, const Pages& pages, column_block<Storage> (&blocks)[2],
                        std::uint32_t base, std::size_t stride) {
    column_block<Storage>* block = &blocks[0];
    column_block<Storage>* next = &blocks[1];
    for (block->fill(plan, at, last, pages); !block->columns.empty(); std::swap(block, next)) {
      next->fill(plan, at, last, pages);
      for (const index_run run : block->tokens.runs()) {
        for_head_blocks(group_, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
          score_columns<Heads, Storage>(
              block->columns, run, q.values.data() + std::size_t{h} * Format::k_dim, Format::k_dim,
              products_.data() + h * stride + (block->first_token - base), stride,
              h == 0 ? std::span<const column<Storage>>(next->columns)
                     : std::span<const column<Storage>>());
        });
      }
    }
  }

  template <class Pages>
  void fold_by_rows(const attention::query_group& q, const access_plan& plan,
                    const layout::head_pages& head, const Pages& pages) {
    const float scale = q.logits.scale_for(Format::k_dim);
    resize_scratch(scaled_q_, q.values.size());
    std::ranges::transform(q.values, scaled_q_.begin(), [&](float x) { return x * scale; });
    const std::size_t sealed = sealed_reads(plan);
    row_fold_.fold(scaled_q_, q.logits.soft_cap, plan, 0, sealed, pages, state_);
    if constexpr (!Format::plain) {
      if (head.tiles.k_by_token.tokens == head.tiles.v_by_token.tokens) {
        open_row_fold_.fold(scaled_q_, q.logits.soft_cap, plan, sealed, plan.reads().size(), pages,
                            state_);
      } else {  // some V pages under the open K page are sealed
        fold_by_tiles(q, plan, sealed, head, pages);
      }
    }
  }

  // Layouts without rows: tile by tile, as the plan gives a K tile before the V pages under it. From read `i` on.
  template <class Pages>
  void fold_by_tiles(const attention::query_group& q, const access_plan& plan, std::size_t i,
                     const layout::head_pages& head, const Pages& pages) {
    const auto reads = plan.reads();
    while (i < reads.size()) {
      const std::uint32_t tile_first = first_token(reads[i], head);
      const std::uint32_t tile_tokens = head.tiles.of(reads[i].kind).tokens;
      products_.assign(std::size_t{group_} * tile_tokens, 0.0f);
      const index_view wanted = plan.tokens(reads[i]);
      for (; i < reads.size() && reads[i].kind != stream::v_by_token; ++i) {
        const auto page = pages(reads[i]);
        score_any(page, wanted, plan.dims(reads[i]), group_,
                  q.values.data() + std::size_t{reads[i].dim_tile} * page.shape.dims, Format::k_dim,
                  products_.data(), tile_tokens);
      }
      weigh(q, wanted, tile_tokens);
      for (; i < reads.size() && reads[i].kind == stream::v_by_token; ++i) {
        const auto page = pages(reads[i]);
        fold_any(page, plan.tokens(reads[i]), group_,
                 products_.data() + (first_token(reads[i], head) - tile_first), tile_tokens,
                 state_.output(0).data() + std::size_t{reads[i].dim_tile} * page.shape.dims,
                 Format::v_dim);
      }
    }
  }

  // Turns the wanted products [group, stride] into weights exp(logit - max), and rescales the state where the maximum
  // moves.
  void weigh(const attention::query_group& q, index_view wanted, std::size_t stride) {
    const float scale = q.logits.scale_for(Format::k_dim);
    for (std::uint32_t h = 0; h < group_; ++h) {
      float* row = products_.data() + h * stride;
      softmax_state<float>& state = state_.state(h);
      float max = state.max;
      for (const index_run run : wanted.runs()) {
        max = std::max(max, scale_logits(row + run.first, run.size(), scale, q.logits.soft_cap));
      }
      const float keep = rescale_factor(state.max, max);
      if (keep != 1.0f) {
        multiply(state_.output(h).data(), Format::v_dim, keep);
      }
      state.sum *= keep;
      state.max = max;
      for (const index_run run : wanted.runs()) {
        state.sum += exponentials(row + run.first, run.size(), max);
      }
    }
  }

  std::uint32_t group_ = 1;
  group_state state_;
  std::vector<float> kept_;      // [group]
  std::vector<float> mean_;      // [v_dim]
  std::vector<float> products_;  // [group, tokens]
  std::vector<float> rank_;
  index_set positions_;
  top_k_scratch top_k_;
  std::vector<float> scaled_q_;  // [group, k_dim]
  row_fold<Format> row_fold_;
  column_block<typename Format::storage> columns_[2];
  // The same for open pages, which a codec has not coded yet.
  std::conditional_t<Format::plain, std::monostate, row_fold<typename Format::open>> open_row_fold_;
  column_block<typename Format::open::storage> open_columns_[2];
  std::deque<std::vector<float>> scores_;
  std::size_t scores_used_ = 0;
};

struct path {
  template <class Format>
  using arithmetic = HWY_NAMESPACE::arithmetic<Format>;
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
