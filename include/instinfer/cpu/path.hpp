#pragma once
// The CPU path, the "in-storage core": fp32 accumulation, SIMD over Highway, pages folded as they lie in the store.

#include <cmath>
#include <vector>

#include "instinfer/attention/machine.hpp"
#include "instinfer/cpu/score_pass-inl.hpp"
#include "instinfer/cpu/score_pool-inl.hpp"
#include "instinfer/cpu/shared_fold-inl.hpp"
#include "instinfer/cpu/tile_fold-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// The arithmetic of one worker; see reference/path.hpp for the same operations in the paper's words.
template <class Format>
class arithmetic : public score_pool {
 public:
  using format = Format;
  using element = typename Format::element;
  using score_pool::scores;

  // Whole heads may be left to a team, which folds and scores page ranges; the rest of an operation is this thread's.
  void work_with(const team& with) { team_ = with; }

  void begin(const attention::query_group& q, const layout::head_pages& /*head*/) {
    group_ = q.group;
    state_.reset(group_, Format::v_dim);
    kept_.assign(group_, 1.0f);
    mean_.assign(Format::v_dim, 0.0f);
    begin_scores();
  }

  void top_dims(const attention::query_group& q, std::uint32_t r, index_set& chosen) {
    magnitude_.assign(Format::k_dim, 0.0f);
    for (std::size_t i = 0; i < q.values.size(); ++i) {
      magnitude_[i % Format::k_dim] += std::abs(q.values[i]);
    }
    top_of(magnitude_, r, chosen);
  }

  template <class Pages>
  scores score_dims(const attention::query_group& q, index_view dims, index_view tokens,
                    const access_plan& plan, const layout::head_pages& head, const Pages& pages) {
    const scores logits = new_scores(tokens, group_);
    score_pass_.score(q, dims, tokens, plan, head, pages, team_, logits.values);
    return logits;
  }

  template <class Pages>
  scores score_tokens(const attention::query_group& q, index_view tokens, const access_plan& plan,
                      const layout::head_pages& /*head*/, const Pages& pages) {
    const scores logits = new_scores(tokens, group_);
    std::ranges::fill(logits.values, 0.0f);
    const std::size_t n = tokens.count();
    for_each_row(
        plan, pages,
        [&](const page_read& read, const auto& page, std::uint32_t t, std::size_t at) HWY_ATTR {
          const float* queries = q.values.data() + std::size_t{read.dim_tile} * page.shape.dims;
          float* to = logits.values.data() + at;
          if (page.shape.dim_stride == 1 && page.shape.dims == Format::k_dim) {
            for_head_blocks(group_, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
              dot_row<Heads>(page.data + page.shape.offset(t, 0), queries + h * Format::k_dim,
                             Format::k_dim, to + h * n, n);
            });
          } else {
            const index_run one{t, t + 1};
            score_any(page, {{&one, 1}, 1}, plan.dims(read), group_, queries, Format::k_dim, to - t,
                      n);
          }
        });
    scale_logits(logits.values.data(), logits.values.size(), q.logits.scale_for(Format::k_dim),
                 q.logits.soft_cap);
    return logits;
  }

  scores weights(const scores& logits) {
    const scores p = new_scores(logits.candidates, group_);
    std::ranges::copy(logits.values, p.values.begin());
    for (std::uint32_t h = 0; h < logits.heads(); ++h) {
      exponentials(p.head(h).data(), p.head(h).size(), state_.state(h).max);
      multiply(p.head(h).data(), p.head(h).size(), 1.0f / state_.state(h).sum);
    }
    return p;
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
      tile_fold_.fold(q, plan, head, pages, state_);
    }
  }

  template <class Pages>
  void fold_scored(const scores& logits, index_view tokens, const access_plan& plan,
                   const layout::head_pages& /*head*/, const Pages& pages) {
    const std::size_t n = tokens.count();
    resize_scratch(products_, group_ * n);
    std::size_t at = 0;
    for_each_position(logits.candidates, tokens, [&](std::uint32_t, std::uint32_t position) {
      for (std::uint32_t h = 0; h < group_; ++h) {
        products_[h * n + at] = logits.head(h)[position];
      }
      ++at;
    });
    for (std::uint32_t h = 0; h < group_ && n > 0; ++h) {
      const float max = state_.raise_max(h, max_of(products_.data() + h * n, n));
      state_.state(h).sum += exponentials(products_.data() + h * n, n, max);
    }
    for_each_row(
        plan, pages,
        [&](const page_read& read, const auto& page, std::uint32_t t, std::size_t row) HWY_ATTR {
          const float* weights = products_.data() + row;
          float* o = state_.output(0).data() + std::size_t{read.dim_tile} * page.shape.dims;
          if (page.shape.dim_stride == 1 && page.shape.dims == Format::v_dim) {
            for_head_blocks(group_, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
              add_row<Heads>(page.data + page.shape.offset(t, 0), weights + h * n, n,
                             o + h * Format::v_dim, Format::v_dim);
            });
          } else {
            const index_run one{t, t + 1};
            fold_any(page, {{&one, 1}, 1}, group_, weights - t, n, o, Format::v_dim);
          }
        });
  }

  // A unit of n members weighs n exp(logit) in the sum, and exp(logit) times the sum of their values.
  template <attention::WeightedUnitState Table>
  void fold_rows(const scores& logits, index_view units, const Table& table) {
    const std::size_t n = units.count();
    resize_scratch(products_, group_ * n);
    for (std::uint32_t h = 0; h < group_ && n > 0; ++h) {
      float* row = products_.data() + h * n;
      for_each_position(logits.candidates, units, [&](std::uint32_t, std::uint32_t position) {
        *row++ = logits.head(h)[position];
      });
      row = products_.data() + h * n;
      exponentials(row, n, state_.raise_max(h, max_of(row, n)));
      units.for_each([&](std::uint32_t u) {
        state_.state(h).sum += static_cast<float>(table.weight(u)) * *row++;
      });
    }
    std::size_t at = 0;
    units.for_each([&](std::uint32_t u) {
      for_head_blocks(group_, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
        add_row<Heads>(table.value_sum(u).data(), products_.data() + h * n + at, n,
                       state_.output(h).data(), Format::v_dim);
      });
      ++at;
    });
  }

  void keep_mass(const scores& s, index_view tokens) {
    std::fill(kept_.begin(), kept_.end(), 0.0f);
    for_each_position(s.candidates, tokens, [&](std::uint32_t, std::uint32_t position) {
      for (std::uint32_t h = 0; h < group_; ++h) {
        kept_[h] += s.head(h)[position];
      }
    });
  }

  template <class Mean>
  void blend_mean(const scores& s, index_view tokens, const Mean& mean) {
    keep_mass(s, tokens);
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
  template <class Pages>
  void fold_by_rows(const attention::query_group& q, const access_plan& plan, const Pages& pages) {
    const float scale = q.logits.scale_for(Format::k_dim);
    resize_scratch(scaled_q_, q.values.size());
    std::ranges::transform(q.values, scaled_q_.begin(), [&](float x) { return x * scale; });
    fold_.fold(scaled_q_, q.logits.soft_cap, plan, pages, team_, state_, q.first_head);
  }

  team team_;
  std::uint32_t group_ = 1;
  group_state state_;
  std::vector<float> kept_;       // [group]
  std::vector<float> mean_;       // [v_dim]
  std::vector<float> products_;   // [group, folded tokens or units]
  std::vector<float> magnitude_;  // |q| [k_dim]
  std::vector<float> scaled_q_;   // [group, k_dim]
  shared_fold<Format> fold_;
  tile_fold<Format> tile_fold_;
  score_pass<Format> score_pass_;
};

struct path {
  template <class Format>
  using arithmetic = HWY_NAMESPACE::arithmetic<Format>;
};

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
