#pragma once
// The reference path in fp64 with Eigen: slow, and written to follow InstInfer Alg. 1 line by line.

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "instinfer/attention/query_group.hpp"
#include "instinfer/core/access_plan.hpp"
#include "instinfer/core/softmax_state.hpp"
#include "instinfer/layout/head_pages.hpp"
#include "instinfer/layout/page_reader.hpp"
#include "instinfer/reference/exact.hpp"
#include "instinfer/reference/score_pool.hpp"

namespace instinfer::reference {

// Per query head h of the group: softmax state and output o_h. Pages are read element by element
// through the layout's mapping, exactly as planned.
template <class Format>
class arithmetic : public score_pool {
 public:
  using format = Format;
  using score_pool::scores;

  void begin(const attention::query_group& q, const layout::head_pages& /*head*/) {
    group_ = q.group;
    sinks_ = q.sink_logits;
    states_.assign(static_cast<std::size_t>(group_), {});
    outputs_ = matrix::Zero(group_, Format::v_dim);
    kept_ = row_vector::Ones(group_);
    mean_ = row_vector::Zero(Format::v_dim);
    begin_scores();
  }

  // l. 1: the r largest components of |q|, reduced over the group.
  void top_dims(const attention::query_group& q, attention::group_reduction over, std::uint32_t r,
                index_set& chosen) {
    const matrix all = rows_of(q).cwiseAbs();
    row_vector magnitude = all.colwise().sum();
    if (over == attention::group_reduction::max) {
      magnitude = all.colwise().maxCoeff();
    }
    top_of({magnitude.data(), static_cast<std::size_t>(magnitude.size())}, r, chosen);
  }

  // l. 2-8: q[i] K[:, i]^T / sqrt(d |q[i]|_1 / |q|_1).
  [[gnu::noinline]] scores score_dims(const attention::query_group& q, index_view dims,
                                      index_view tokens, const access_plan& plan,
                                      const layout::head_pages& head,
                                      const layout::page_reader<Format>& pages) {
    const matrix queries = rows_of(q);
    const matrix products = products_of(queries, plan, head, pages);
    scores logits = new_scores(tokens, q.group);
    for (Eigen::Index h = 0; h < group_; ++h) {
      double chosen_norm = 0.0;
      dims.for_each([&](std::uint32_t i) { chosen_norm += std::abs(queries(h, i)); });
      const double norm = queries.row(h).cwiseAbs().sum();
      const double coverage = norm > 0.0 && chosen_norm > 0.0 ? chosen_norm / norm : 1.0;
      auto to = logits.head(static_cast<std::size_t>(h)).begin();
      tokens.for_each([&](std::uint32_t t) {
        *to++ = q.logit(products(h, t) * scale(q) / std::sqrt(coverage),
                        static_cast<std::uint32_t>(h), t);
      });
    }
    return logits;
  }

  // q K[j, :]^T / sqrt(d).
  [[gnu::noinline]] scores score_tokens(const attention::query_group& q, index_view tokens,
                                        const access_plan& plan, const layout::head_pages& head,
                                        const layout::page_reader<Format>& pages) {
    const matrix products = products_of(rows_of(q), plan, head, pages);
    scores logits = new_scores(tokens, q.group);
    for (Eigen::Index h = 0; h < group_; ++h) {
      auto to = logits.head(static_cast<std::size_t>(h)).begin();
      tokens.for_each([&](std::uint32_t t) {
        *to++ = q.logit(products(h, t) * scale(q), static_cast<std::uint32_t>(h), t);
      });
    }
    return logits;
  }

  // exp(logit) / sum of exp(logit) of everything folded.
  scores weights(const scores& logits) {
    scores p = new_scores(logits.candidates, logits.heads());
    for (std::size_t h = 0; h < logits.heads(); ++h) {
      const double all = states_[h].log_sum_exp();
      std::ranges::transform(logits.head(h), p.head(h).begin(),
                             [&](double x) { return std::exp(x - all); });
    }
    return p;
  }

  // l. 12-18: s = softmax(q K[j, :]^T / sqrt(d)), o = s V[j, :], token by token into the mergeable
  // state.
  [[gnu::noinline]] void fold(const attention::query_group& q, const access_plan& plan,
                              const layout::head_pages& head,
                              const layout::page_reader<Format>& pages) {
    const matrix products = products_of(rows_of(q), plan, head, pages);
    fold_values(q.first_head, q.group, plan, head, pages, [&](std::size_t h, std::uint32_t token) {
      return q.logit(products(static_cast<Eigen::Index>(h), token) * scale(q),
                     static_cast<std::uint32_t>(h), token);
    });
  }

  // The same with known logits.
  [[gnu::noinline]] void fold_scored(const scores& logits, index_view tokens,
                                     const access_plan& plan, const layout::head_pages& head,
                                     const layout::page_reader<Format>& pages) {
    std::vector<std::size_t> position(head.tokens);
    for_each_position(logits.candidates, tokens,
                      [&](std::uint32_t t, std::uint32_t at) { position[t] = at; });
    fold_values(
        0, static_cast<std::size_t>(group_), plan, head, pages,
        [&](std::size_t h, std::uint32_t token) { return logits.head(h)[position[token]]; });
  }

  // A chunk of n members counts like n tokens with its logit and the mean of their values.
  template <attention::WeightedChunkState Table>
  void fold_rows(const scores& logits, index_view chunks, const Table& table) {
    for_each_position(logits.candidates, chunks, [&](std::uint32_t u, std::uint32_t at) {
      const double n = table.weight(u);
      row_vector mean(Format::v_dim);
      std::ranges::transform(table.value_mean(u), mean.begin(),
                             [](float x) { return static_cast<double>(x); });
      for (std::size_t h = 0; h < logits.heads(); ++h) {
        fold_entry<double>(states_[h], output(static_cast<Eigen::Index>(h)), logits.head(h)[at],
                           {mean.data(), Format::v_dim}, n);
      }
    });
  }

  // l. 11: alpha = the sum of s-hat over the kept tokens.
  void keep_mass(const scores& s, index_view tokens) {
    kept_.setZero();
    for_each_position(s.candidates, tokens, [&](std::uint32_t, std::uint32_t position) {
      for (Eigen::Index h = 0; h < group_; ++h) {
        kept_[h] += s.head(static_cast<std::size_t>(h))[position];
      }
    });
  }

  template <class Mean>
  void blend_mean(const scores& s, index_view tokens, const Mean& mean) {
    keep_mass(s, tokens);
    for (Eigen::Index i = 0; i < mean_.size(); ++i) {
      mean_[i] = mean[static_cast<std::size_t>(i)];
    }
  }

  // l. 19: out = alpha o + (1 - alpha) v-bar. A learned sink then takes its share of the weight.
  void finish(std::span<float> out, std::span<float> log_sum_exp) {
    for (Eigen::Index h = 0; h < outputs_.rows(); ++h) {
      const auto at = static_cast<std::size_t>(h);
      row_vector blended = kept_[h] * outputs_.row(h) + (1.0 - kept_[h]) * mean_;
      double all = log_sum_exp_of_all(states_[at].log_sum_exp(), kept_[h]);
      if (!sinks_.empty()) {
        blended *= add_sink(all, static_cast<double>(sinks_[at % sinks_.size()]));
      }
      for (Eigen::Index i = 0; i < blended.size(); ++i) {
        out[static_cast<std::size_t>(h * blended.size() + i)] = static_cast<float>(blended[i]);
      }
      if (!log_sum_exp.empty()) {
        log_sum_exp[at] = in_fp32(all);
      }
    }
  }

 private:
  // Folds the planned V pages into `heads` heads, starting at `first_head`. In logit_of(head,
  // token), heads count from first_head.
  template <class LogitOf>
  void fold_values(std::size_t first_head, std::size_t heads, const access_plan& plan,
                   const layout::head_pages& head, const layout::page_reader<Format>& pages,
                   LogitOf&& logit_of) {
    const auto v_pages_per_token = head.of(stream::v_by_token).dim_tiles;
    std::vector<row_vector> rows;
    const auto ahead = pages.ahead(plan, layout::read_streams::values);
    for (const page_read& read : plan.reads()) {
      if (read.kind != stream::v_by_token) {
        continue;
      }
      if (read.dim_tile == 0) {
        rows.assign(read.tokens.count, row_vector::Zero(Format::v_dim));
      }
      const auto page = ahead(read);
      std::size_t at = 0;
      plan.tokens(read).for_each([&](std::uint32_t t) {
        plan.dims(read).for_each([&](std::uint32_t i) {
          rows[at][read.dim_tile * page.shape.dims + i] = static_cast<double>(page(t, i));
        });
        ++at;
      });
      if (read.dim_tile + 1 == v_pages_per_token) {
        at = 0;
        plan.tokens(read).for_each([&](std::uint32_t t) {
          const std::uint32_t token = read.token_tile * page.shape.tokens + t;
          for (std::size_t h = 0; h < heads; ++h) {
            fold_entry<double>(states_[first_head + h],
                               output(static_cast<Eigen::Index>(first_head + h)),
                               logit_of(h, token), {rows[at].data(), Format::v_dim});
          }
          ++at;
        });
      }
    }
  }

  // Logarithms beyond fp32 become its largest number of their sign, as on the CPU path. -inf stays:
  // nothing was folded.
  static float in_fp32(double log_sum_exp) {
    constexpr auto largest = static_cast<double>(std::numeric_limits<float>::max());
    return static_cast<float>(std::isinf(log_sum_exp) ? log_sum_exp
                                                      : std::clamp(log_sum_exp, -largest, largest));
  }

  std::span<double> output(Eigen::Index h) {
    return {outputs_.row(h).data(), static_cast<std::size_t>(outputs_.cols())};
  }

  static double scale(const attention::query_group& q) {
    return q.logits.scale_for<double>(Format::k_dim);
  }

  static matrix rows_of(const attention::query_group& q) {
    return Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
               q.values.data(), q.group, Format::k_dim)
        .template cast<double>();
  }

  // [group, tokens]: the sum of q_h[i] K[t, i] over the wanted (t, i) of the planned pages of K.
  static matrix products_of(const matrix& queries, const access_plan& plan,
                            const layout::head_pages& head,
                            const layout::page_reader<Format>& pages) {
    matrix products = matrix::Zero(queries.rows(), head.tokens);
    const auto ahead = pages.ahead(plan, layout::read_streams::keys);
    for (const page_read& read : plan.reads()) {
      if (read.kind == stream::v_by_token) {
        continue;
      }
      const auto page = ahead(read);
      plan.tokens(read).for_each([&](std::uint32_t t) {
        plan.dims(read).for_each([&](std::uint32_t i) {
          const double k = static_cast<double>(page(t, i));
          products.col(read.token_tile * page.shape.tokens + t) +=
              k * queries.col(read.dim_tile * page.shape.dims + i);
        });
      });
    }
    return products;
  }

  Eigen::Index group_ = 1;
  std::vector<softmax_state<double>> states_;  // [group]
  matrix outputs_;                             // [group, v_dim]
  row_vector kept_;                            // alpha [group]
  row_vector mean_;                            // v-bar [v_dim]
  std::span<const float> sinks_;               // of row h: entry h % size
};

struct path {
  template <class Format>
  using arithmetic = reference::arithmetic<Format>;
};

}  // namespace instinfer::reference
