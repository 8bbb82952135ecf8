#pragma once
// The CPU path, the "in-storage core": fp32 accumulation, SIMD over Highway, pages folded as they lie in the store.

#include <cmath>
#include <deque>
#include <vector>

#include "instinfer/attention/machine.hpp"
#include "instinfer/cpu/any_tile-inl.hpp"
#include "instinfer/cpu/score_pass-inl.hpp"
#include "instinfer/cpu/shared_fold-inl.hpp"
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

  // Whole heads may be left to a team, which folds and scores page ranges; the rest of an operation is this thread's.
  void work_with(const team& with) { team_ = with; }

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
    std::vector<float>& probabilities = next_scores();
    score_pass_.score(q, dims, tokens, plan, head, pages, team_, probabilities);
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
    const layout::tile& k = head.tiles.k_by_token;
    const layout::tile& v = head.tiles.v_by_token;
    if (k.dim_stride == 1 && k.dims == Format::k_dim && v.dim_stride == 1 &&
        v.dims == Format::v_dim) {
      fold_by_rows(q, plan, pages);
    } else {
      fold_by_tiles(q, plan, head, pages);
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
  static std::uint32_t first_token(const page_read& read, const layout::head_pages& head) {
    return read.token_tile * head.tiles.of(read.kind).tokens;
  }

  std::vector<float>& next_scores() {
    if (scores_used_ == scores_.size()) {
      scores_.emplace_back();
    }
    return scores_[scores_used_++];
  }

  template <class Pages>
  void fold_by_rows(const attention::query_group& q, const access_plan& plan, const Pages& pages) {
    const float scale = q.logits.scale_for(Format::k_dim);
    resize_scratch(scaled_q_, q.values.size());
    std::ranges::transform(q.values, scaled_q_.begin(), [&](float x) { return x * scale; });
    fold_.fold(scaled_q_, q.logits.soft_cap, plan, pages, team_, state_, q.first_head);
  }

  // Layouts without rows: tile by tile, as the plan gives a K tile before the V pages under it.
  template <class Pages>
  void fold_by_tiles(const attention::query_group& q, const access_plan& plan,
                     const layout::head_pages& head, const Pages& pages) {
    const auto reads = plan.reads();
    for (std::size_t i = 0; i < reads.size();) {
      const std::uint32_t tile_first = first_token(reads[i], head);
      const std::uint32_t tile_tokens = head.tiles.of(reads[i].kind).tokens;
      products_.assign(std::size_t{q.group} * tile_tokens, 0.0f);
      const index_view wanted = plan.tokens(reads[i]);
      for (; i < reads.size() && reads[i].kind != stream::v_by_token; ++i) {
        const auto page = pages(reads[i]);
        score_any(page, wanted, plan.dims(reads[i]), q.group,
                  q.values.data() + std::size_t{reads[i].dim_tile} * page.shape.dims, Format::k_dim,
                  products_.data(), tile_tokens);
      }
      weigh(q, wanted, tile_tokens);
      for (; i < reads.size() && reads[i].kind == stream::v_by_token; ++i) {
        const auto page = pages(reads[i]);
        fold_any(
            page, plan.tokens(reads[i]), q.group,
            products_.data() + (first_token(reads[i], head) - tile_first), tile_tokens,
            state_.output(q.first_head).data() + std::size_t{reads[i].dim_tile} * page.shape.dims,
            Format::v_dim);
      }
    }
  }

  // Turns the wanted products [group, stride] into weights exp(logit - max), and rescales the state where the maximum
  // moves.
  void weigh(const attention::query_group& q, index_view wanted, std::size_t stride) {
    const float scale = q.logits.scale_for(Format::k_dim);
    for (std::uint32_t h = 0; h < q.group; ++h) {
      float* row = products_.data() + h * stride;
      softmax_state<float>& state = state_.state(q.first_head + h);
      float max = state.max;
      for (const index_run run : wanted.runs()) {
        max = std::max(max, scale_logits(row + run.first, run.size(), scale, q.logits.soft_cap));
      }
      const float keep = rescale_factor(state.max, max);
      if (keep != 1.0f) {
        multiply(state_.output(q.first_head + h).data(), Format::v_dim, keep);
      }
      state.sum *= keep;
      state.max = max;
      for (const index_run run : wanted.runs()) {
        state.sum += exponentials(row + run.first, run.size(), max);
      }
    }
  }

  team team_;
  std::uint32_t group_ = 1;
  group_state state_;
  std::vector<float> kept_;      // [group]
  std::vector<float> mean_;      // [v_dim]
  std::vector<float> products_;  // [group, tokens of a tile]
  std::vector<float> rank_;
  index_set positions_;
  top_k_scratch top_k_;
  std::vector<float> scaled_q_;  // [group, k_dim]
  shared_fold<Format> fold_;
  score_pass<Format> score_pass_;
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
