#pragma once
// The CPU path, the "in-storage core": fp32 accumulation, SIMD over Highway, pages folded as they lie in the store.

#include <cmath>
#include <deque>
#include <vector>

#include "instinfer/attention/machine.hpp"
#include "instinfer/core/softmax_state.hpp"
#include "instinfer/core/top_k.hpp"
#include "instinfer/cpu/fold-inl.hpp"
#include "instinfer/cpu/score-inl.hpp"
#include "instinfer/cpu/softmax-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// The arithmetic of one worker; see reference/path.hpp for the same operations in the paper's words.
template <class Format>
class arithmetic {
 public:
  using format = Format;

  struct scores {
    index_view tokens;
    std::span<const float> probabilities;  // [group, tokens]
  };

  void begin(const attention::query_group& q, const layout::head_pages& /*head*/) {
    group_ = q.group;
    states_.assign(group_, {});
    outputs_.assign(std::size_t{group_} * Format::v_dim, 0.0f);
    kept_.assign(group_, 1.0f);
    mean_.assign(Format::v_dim, 0.0f);
    scores_used_ = 0;
  }

  void top_dims(const attention::query_group& q, std::uint32_t r, index_set& chosen) {
    rank_.assign(Format::k_dim, 0.0f);
    for (std::size_t i = 0; i < q.values.size(); ++i) {
      rank_[i % Format::k_dim] += std::abs(q.values[i]);
    }
    top_k<float>(rank_, r, chosen, keys_);
  }

  template <class Pages>
  scores score_dims(const attention::query_group& q, index_view dims, index_view tokens,
                    const access_plan& plan, const layout::head_pages& head, const Pages& pages) {
    products_.assign(std::size_t{group_} * head.tokens, 0.0f);
    for (const page_read& read : plan.reads()) {
      score(read, plan, pages(read), q.values, products_.data() + first_token(read, head),
            head.tokens);
    }
    std::vector<float>& probabilities = next_scores();
    probabilities.resize(std::size_t{group_} * tokens.count());
    for (std::uint32_t h = 0; h < group_; ++h) {
      float* row = probabilities.data() + std::size_t{h} * tokens.count();
      float* to = row;
      for (const index_run run : tokens.runs()) {
        to = std::copy_n(products_.data() + std::size_t{h} * head.tokens + run.first, run.size(),
                         to);
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
    rank_.assign(n, 0.0f);
    for (std::uint32_t h = 0; h < group_; ++h) {
      accumulate(rank_.data(), s.probabilities.data() + h * n, n);
    }
    std::fill(rank_.end() - local, rank_.end(), std::numeric_limits<float>::infinity());
    positions_.clear();
    top_k<float>(rank_, k, positions_, keys_);
    tokens_at(s.tokens, positions_, chosen);
  }

  // Tile by tile: the plan gives a K tile before the V pages under it.
  template <class Pages>
  void fold(const attention::query_group& q, const access_plan& plan,
            const layout::head_pages& head, const Pages& pages) {
    const auto reads = plan.reads();
    for (std::size_t i = 0; i < reads.size();) {
      const std::uint32_t tile_first = first_token(reads[i], head);
      const std::uint32_t tile_tokens = head.tiles.of(reads[i].kind).tokens;
      products_.assign(std::size_t{group_} * tile_tokens, 0.0f);
      const index_view wanted = plan.tokens(reads[i]);
      for (; i < reads.size() && reads[i].kind != stream::v_by_token; ++i) {
        score(reads[i], plan, pages(reads[i]), q.values, products_.data(), tile_tokens);
      }
      weigh(q, wanted, tile_tokens);
      for (; i < reads.size() && reads[i].kind == stream::v_by_token; ++i) {
        const page_read& read = reads[i];
        const auto page = pages(read);
        const float* weights = products_.data() + (first_token(read, head) - tile_first);
        float* o = outputs_.data() + std::size_t{read.dim_tile} * page.shape.dims;
        for_head_blocks(group_, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
          fold_page<Heads>(page, plan.tokens(read), weights + std::size_t{h} * tile_tokens,
                           tile_tokens, o + std::size_t{h} * Format::v_dim, Format::v_dim);
        });
      }
    }
  }

  template <class Mean>
  void blend_mean(const scores& s, index_view tokens, const Mean& mean) {
    std::fill(kept_.begin(), kept_.end(), 0.0f);
    std::uint32_t at = 0;
    s.tokens.for_each([&](std::uint32_t t) {
      if (tokens.contains(t)) {
        for (std::uint32_t h = 0; h < group_; ++h) {
          kept_[h] += s.probabilities[std::size_t{h} * s.tokens.count() + at];
        }
      }
      ++at;
    });
    for (std::size_t i = 0; i < mean_.size(); ++i) {
      mean_[i] = static_cast<float>(mean[i]);
    }
  }

  void finish(std::span<float> out) {
    for (std::uint32_t h = 0; h < group_; ++h) {
      const std::span<float> o =
          std::span(outputs_).subspan(std::size_t{h} * Format::v_dim, Format::v_dim);
      normalise(states_[h], o);
      for (std::size_t i = 0; i < o.size(); ++i) {
        out[h * o.size() + i] = kept_[h] * o[i] + (1.0f - kept_[h]) * mean_[i];
      }
    }
  }

 private:
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

  // Tokens at the given positions of a set, both ascending.
  static void tokens_at(index_view tokens, index_view positions, index_set& chosen) {
    auto run = tokens.runs().begin();
    std::uint32_t before = 0;  // tokens of the runs before `run`
    positions.for_each([&](std::uint32_t position) {
      for (; position - before >= run->size(); ++run) {
        before += run->size();
      }
      chosen.add(run->first + position - before);
    });
  }

  void score(const page_read& read, const access_plan& plan,
             const layout::tile_view<typename Format::element>& page,
             std::span<const float> queries, float* products, std::size_t stride) const {
    for_head_blocks(group_, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
      score_page<Heads>(page, plan.tokens(read), plan.dims(read),
                        queries.data() + std::size_t{h} * Format::k_dim +
                            std::size_t{read.dim_tile} * page.shape.dims,
                        Format::k_dim, products + h * stride, stride);
    });
  }

  // Turns the tile's products into weights exp(logit - max), 0 for unwanted tokens, and rescales the state where the
  // maximum moves.
  void weigh(const attention::query_group& q, index_view wanted, std::uint32_t tile_tokens) {
    const float scale = q.logits.scale_for(Format::k_dim);
    for (std::uint32_t h = 0; h < group_; ++h) {
      float* row = products_.data() + std::size_t{h} * tile_tokens;
      float max = states_[h].max;
      for (const index_run run : wanted.runs()) {
        max = std::max(max, scale_logits(row + run.first, run.size(), scale, q.logits.soft_cap));
      }
      const float keep = rescale_factor(states_[h].max, max);
      if (keep != 1.0f) {
        multiply(outputs_.data() + std::size_t{h} * Format::v_dim, Format::v_dim, keep);
      }
      states_[h].sum *= keep;
      states_[h].max = max;
      for (const index_run run : wanted.runs()) {
        states_[h].sum += exponentials(row + run.first, run.size(), max);
      }
    }
  }

  std::uint32_t group_ = 1;
  std::vector<softmax_state<float>> states_;  // [group]
  std::vector<float> outputs_;                // [group, v_dim]
  std::vector<float> kept_;                   // [group]
  std::vector<float> mean_;                   // [v_dim]
  std::vector<float> products_;               // [group, tokens]
  std::vector<float> rank_;
  index_set positions_;
  std::vector<order_key_t<float>> keys_;
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
