#pragma once
// The CPU path, the "in-storage core": fp32 accumulation, SIMD by Highway; pages are folded in
// place in the store.

#include <algorithm>
#include <cmath>
#include <variant>
#include <vector>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/core/access_plan.hpp"
#include "instinfer/cpu/fold/shared_fold-inl.hpp"
#include "instinfer/cpu/fold/tile_fold-inl.hpp"
#include "instinfer/cpu/score/score_pass-inl.hpp"
#include "instinfer/cpu/score/score_pool-inl.hpp"
#include "instinfer/layout/head_pages.hpp"
#include "instinfer/layout/page_reader.hpp"
#include "instinfer/summaries/chunks.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// The arithmetic of one worker. reference/path.hpp has the same operations in the paper's terms.
// Operations are not inlined into the programs of policies, so they are compiled once per format;
// in programs of several units once in all, if one unit instantiates the class and the others
// declare it extern.
template <class Format, tuning T = tuning{}>
class arithmetic : public score_pool {
  static_assert(
      T.valid(),
      "instinfer: a tuning has 16, 32 or 64 block_rows, 1, 2, 4 or 8 heads (up to heads_at_once), 1 to 3 matrix_parts, and prefetches up to 64 KiB or 256 rows ahead, see cpu/tuning-inl.hpp");

 public:
  using format = Format;
  using element = typename Format::element;
  using score_pool::scores;

  // A team can share whole heads: it folds and scores page ranges. This thread does the rest of an
  // operation.
  void work_with(const team& with) { team_ = with; }

  void begin(const attention::query_group& q, const layout::head_pages& /*head*/) {
    group_ = q.group;
    sinks_ = q.sink_logits;
    state_.reset(group_, Format::v_dim);
    kept_.assign(group_, 1.0f);
    mean_.assign(Format::v_dim, 0.0f);
    begin_scores();
  }

  HWY_NOINLINE void top_dims(const attention::query_group& q, attention::group_reduction over,
                             std::uint32_t r, index_set& chosen) {
    const bool sum = over == attention::group_reduction::sum;
    magnitude_.assign(Format::k_dim, 0.0f);
    for (std::size_t i = 0; i < q.values.size(); ++i) {
      float& of = magnitude_[i % Format::k_dim];
      of = sum ? of + std::abs(q.values[i]) : std::max(of, std::abs(q.values[i]));
    }
    top_of(magnitude_, r, chosen);
  }

  HWY_NOINLINE scores score_dims(const attention::query_group& q, index_view dims,
                                 index_view tokens, const access_plan& plan,
                                 const layout::head_pages& head,
                                 const layout::page_reader<Format>& pages);

  HWY_NOINLINE scores score_tokens(const attention::query_group& q, index_view tokens,
                                   const access_plan& plan, const layout::head_pages& /*head*/,
                                   const layout::page_reader<Format>& pages);

  HWY_NOINLINE scores weights(const scores& logits) {
    const scores p = new_scores(logits.candidates, group_);
    for (std::uint32_t h = 0; h < logits.heads(); ++h) {
      exponentials(logits.head(h).data(), p.head(h).data(), p.head(h).size(), state_.state(h).max);
      multiply(p.head(h).data(), p.head(h).size(), 1.0f / state_.state(h).sum);
    }
    return p;
  }

  HWY_NOINLINE void fold(const attention::query_group& q, const access_plan& plan,
                         const layout::head_pages& head, const layout::page_reader<Format>& pages);

  HWY_NOINLINE void fold_scored(const scores& logits, index_view tokens, const access_plan& plan,
                                const layout::head_pages& /*head*/,
                                const layout::page_reader<Format>& pages);

  // A chunk of n members counts like n tokens with its logit and the mean of their values.
  template <attention::WeightedChunkState Table>
  void fold_rows(const scores& logits, index_view chunks, const Table& table) {
    const std::size_t n = chunks.count();
    resize_scratch(products_, group_ * n);
    std::size_t tokens = 0;
    chunks.for_each([&](std::uint32_t u) { tokens += table.weight(u); });
    sums_.reset(group_, Format::v_dim, tokens);
    for (std::uint32_t h = 0; h < group_ && n > 0; ++h) {
      float* row = products_.data() + h * n;
      for_each_position(logits.candidates, chunks, [&](std::uint32_t, std::uint32_t position) {
        *row++ = logits.head(h)[position];
      });
      row = products_.data() + h * n;
      softmax_state<float>& state = sums_.state(h);
      state.max = max_of(row, n);
      exponentials(row, row, n, state.max, sums_.shift());
      chunks.for_each([&](std::uint32_t u) {
        *row *= static_cast<float>(table.weight(u));
        state.sum += *row++;
      });
    }
    std::size_t at = 0;
    chunks.for_each([&](std::uint32_t u) {
      for_head_blocks(group_, [&]<std::uint32_t Heads>(std::uint32_t h) HWY_ATTR {
        add_row<Heads>(table.value_mean(u).data(), products_.data() + h * n + at, n,
                       sums_.row(h).data(), Format::v_dim);
      });
      ++at;
    });
    state_.merge(sums_);
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

  // A learned sink takes its share of the weight last.
  HWY_NOINLINE void finish(std::span<float> out, std::span<float> log_sum_exp) {
    for (std::uint32_t h = 0; h < group_; ++h) {
      const std::span<const float> o = state_.row(h);
      float all = 0.0f;
      if (!log_sum_exp.empty() || !sinks_.empty()) {
        all = log_sum_exp_of_all(state_.state(h).log_sum_exp(), kept_[h]);
      }
      const float left = sinks_.empty() ? 1.0f : add_sink(all, sinks_[h % sinks_.size()]);
      for (std::size_t i = 0; i < o.size(); ++i) {
        const float blended = finite_mean(kept_[h] * o[i] + (1.0f - kept_[h]) * mean_[i]);
        out[h * o.size() + i] = left * blended;
      }
      if (!log_sum_exp.empty()) {
        log_sum_exp[h] = all;
      }
    }
  }

 protected:
  // What folds are merged into, for arithmetics that bring a fold of their own: the rows of q are
  // heads [q.first_head, ...) of it.
  group_state& state() { return state_; }

 private:
  void fold_by_rows(const attention::query_group& q, const access_plan& plan,
                    const layout::head_pages& head, const layout::page_reader<Format>& pages) {
    const float scale = q.logits.scale_for(Format::k_dim);
    resize_scratch(scaled_q_, q.values.size());
    std::ranges::transform(q.values, scaled_q_.begin(), [&](float x) { return x * scale; });
    const std::size_t sealed = sealed_reads<Format>(plan);
    fold_.fold(q, scaled_q_, plan, sealed, pages, team_, state_);
    if constexpr (!Format::plain) {
      if (head.tiles.k_by_token.tokens == head.tiles.v_by_token.tokens) {
        open_fold_.fold(q, scaled_q_, plan, sealed, plan.reads().size(), pages, state_,
                        q.first_head);
      } else {  // some V pages of the open K page are sealed
        tile_fold_.fold(q, plan, sealed, head, pages, state_);
      }
    }
  }

  team team_;
  std::uint32_t group_ = 1;
  group_state state_;
  group_sums sums_;               // of one call
  std::span<const float> sinks_;  // of head h: entry h % size
  std::vector<float> kept_;       // [group]
  std::vector<float> mean_;       // [v_dim]
  std::vector<float> products_;   // [group, folded tokens or chunks]
  std::vector<float> magnitude_;  // |q| [k_dim]
  std::vector<float> scaled_q_;   // [group, k_dim]
  shared_fold<Format, T> fold_;
  // For open pages, which a codec has not encoded yet.
  std::conditional_t<Format::plain, std::monostate, row_fold<typename Format::open, T>> open_fold_;
  tile_fold<Format> tile_fold_;
  score_pass<Format> score_pass_;
};

template <class Format, tuning T>
auto arithmetic<Format, T>::score_dims(const attention::query_group& q, index_view dims,
                                       index_view tokens, const access_plan& plan,
                                       const layout::head_pages& head,
                                       const layout::page_reader<Format>& pages) -> scores {
  const scores logits = new_scores(tokens, group_);
  score_pass_.score(q, dims, tokens, plan, head, pages, team_, logits.values);
  return logits;
}

template <class Format, tuning T>
auto arithmetic<Format, T>::score_tokens(const attention::query_group& q, index_view tokens,
                                         const access_plan& plan,
                                         const layout::head_pages& /*head*/,
                                         const layout::page_reader<Format>& pages) -> scores {
  const scores logits = new_scores(tokens, group_);
  std::ranges::fill(logits.values, 0.0f);
  const std::size_t n = tokens.count();
  for_each_page(plan, pages, [&](const page_read& read, const auto& page, std::size_t at) {
    score_page<Format::k_dim>(page, plan.tokens(read), plan.dims(read), group_,
                              q.values.data() + std::size_t{read.dim_tile} * page.shape.dims,
                              logits.values.data() + at, n);
  });
  scale_logits(logits.values.data(), logits.values.size(), q.logits.scale_for(Format::k_dim),
               q.logits.soft_cap);
  for (std::uint32_t h = 0; h < group_ && q.bias; ++h) {
    add_bias(q, h, tokens, logits.head(h));
  }
  return logits;
}

template <class Format, tuning T>
void arithmetic<Format, T>::fold(const attention::query_group& q, const access_plan& plan,
                                 const layout::head_pages& head,
                                 const layout::page_reader<Format>& pages) {
  if (in_rows<Format>(head.tiles.k_by_token, Format::k_dim) &&
      in_rows<Format>(head.tiles.v_by_token, Format::v_dim)) {
    fold_by_rows(q, plan, head, pages);
  } else {
    tile_fold_.fold(q, plan, 0, head, pages, state_);
  }
}

template <class Format, tuning T>
void arithmetic<Format, T>::fold_scored(const scores& logits, index_view tokens,
                                        const access_plan& plan, const layout::head_pages& /*head*/,
                                        const layout::page_reader<Format>& pages) {
  const std::size_t n = tokens.count();
  resize_scratch(products_, group_ * n);
  std::size_t at = 0;
  for_each_position(logits.candidates, tokens, [&](std::uint32_t, std::uint32_t position) {
    for (std::uint32_t h = 0; h < group_; ++h) {
      products_[h * n + at] = logits.head(h)[position];
    }
    ++at;
  });
  sums_.reset(group_, Format::v_dim, n);
  for (std::uint32_t h = 0; h < group_ && n > 0; ++h) {
    float* row = products_.data() + h * n;
    softmax_state<float>& state = sums_.state(h);
    state.max = max_of(row, n);
    state.sum = exponentials(row, row, n, state.max, sums_.shift());
  }
  for_each_page(plan, pages, [&](const page_read& read, const auto& page, std::size_t first) {
    add_page<Format::v_dim>(page, plan.tokens(read), group_, products_.data() + first, n,
                            sums_.row(0).data() + std::size_t{read.dim_tile} * page.shape.dims);
  });
  state_.merge(sums_);
}

// The path with kernels for a processor.
template <tuning T>
struct tuned_path {
  template <class Format>
  using arithmetic = HWY_NAMESPACE::arithmetic<Format, T>;
};
using path = tuned_path<tuning{}>;

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
