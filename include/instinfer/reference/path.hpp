#pragma once
// The reference path: fp64, Eigen, written to be read beside InstInfer Alg. 1. Slow on purpose.

#include <deque>

#include "instinfer/attention/machine.hpp"
#include "instinfer/core/softmax_state.hpp"
#include "instinfer/core/top_k.hpp"
#include "instinfer/reference/exact.hpp"

namespace instinfer::reference {

// Per query head h of the group: queries q_h, softmax state, output o_h. Pages are read element by element through the
// layout's mapping, exactly as planned.
template <class Format>
class arithmetic {
 public:
  using format = Format;

  // Probabilities over the visible tokens, one row a query head: s-hat of Alg. 1.
  struct scores {
    index_view tokens;
    const matrix* probabilities = nullptr;  // [group, tokens]
  };

  void begin(const attention::query_group& q, const layout::head_pages& /*head*/) {
    group_ = q.group;
    queries_ =
        Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
            q.values.data(), group_, Format::k_dim)
            .template cast<double>();
    states_.assign(group_, {});
    outputs_ = matrix::Zero(group_, Format::v_dim);
    kept_ = row_vector::Ones(group_);
    mean_ = row_vector::Zero(Format::v_dim);
    approximations_.clear();
  }

  // l. 1: the r largest components of |q|, summed over the group.
  void top_dims(const attention::query_group& /*q*/, std::uint32_t r, index_set& chosen) {
    const row_vector magnitude = queries_.cwiseAbs().colwise().sum();
    top_k<double>({magnitude.data(), static_cast<std::size_t>(magnitude.size())}, r, chosen, keys_);
  }

  // l. 2-8: softmax(q[i] K[:, i]^T / sqrt(d |q[i]|_1 / |q|_1)).
  template <class Pages>
  scores score_dims(const attention::query_group& q, index_view dims, index_view tokens,
                    const access_plan& plan, const layout::head_pages& head, const Pages& pages) {
    matrix products = matrix::Zero(group_, head.tokens);
    for (const page_read& read : plan.reads()) {
      add_products(read, plan, head, pages, products);
    }
    matrix& s = approximations_.emplace_back(matrix::Zero(group_, tokens.count()));
    for (Eigen::Index h = 0; h < s.rows(); ++h) {
      double chosen_norm = 0.0;
      dims.for_each([&](std::uint32_t i) { chosen_norm += std::abs(queries_(h, i)); });
      const double norm = queries_.row(h).cwiseAbs().sum();
      const double coverage = norm > 0.0 && chosen_norm > 0.0 ? chosen_norm / norm : 1.0;
      row_vector logits(tokens.count());
      Eigen::Index at = 0;
      tokens.for_each([&](std::uint32_t t) {
        logits[at++] = q.logits.capped(products(h, t) * scale(q) / std::sqrt(coverage));
      });
      s.row(h) = softmax(logits);
    }
    return {tokens, &s};
  }

  // l. 10: the k largest of s-hat, summed over the group; the `local` newest come first.
  void top_tokens(const scores& s, std::uint32_t k, std::uint32_t local, index_set& chosen) {
    row_vector rank = s.probabilities->colwise().sum();
    rank.tail(local).setConstant(std::numeric_limits<double>::infinity());
    index_set positions;
    top_k<double>({rank.data(), static_cast<std::size_t>(rank.size())}, k, positions, keys_);
    add_at_positions(s.tokens, positions, chosen);
  }

  // l. 12-18: s = softmax(q K[j, :]^T / sqrt(d)), o = s V[j, :], token by token into the mergeable state.
  template <class Pages>
  void fold(const attention::query_group& q, const access_plan& plan,
            const layout::head_pages& head, const Pages& pages) {
    matrix products = matrix::Zero(group_, head.tokens);
    const auto v_pages_per_token = head.of(stream::v_by_token).dim_tiles;
    for (const page_read& read : plan.reads()) {
      if (read.kind != stream::v_by_token) {
        add_products(read, plan, head, pages, products);
      }
    }
    std::vector<row_vector> rows;
    for (const page_read& read : plan.reads()) {
      if (read.kind != stream::v_by_token) {
        continue;
      }
      if (read.dim_tile == 0) {
        rows.assign(read.tokens.count, row_vector::Zero(Format::v_dim));
      }
      const auto page = pages(read);
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
          const Eigen::Index token = read.token_tile * page.shape.tokens + t;
          for (Eigen::Index h = 0; h < outputs_.rows(); ++h) {
            fold_entry<double>(states_[static_cast<std::size_t>(h)], output(h),
                               q.logits.capped(products(h, token) * scale(q)),
                               {rows[at].data(), Format::v_dim});
          }
          ++at;
        });
      }
    }
  }

  // l. 11: alpha = the sum of s-hat over the kept tokens.
  template <class Mean>
  void blend_mean(const scores& s, index_view tokens, const Mean& mean) {
    kept_.setZero();
    for_each_position(s.tokens, tokens, [&](std::uint32_t, std::uint32_t position) {
      kept_ += s.probabilities->col(position).transpose();
    });
    for (Eigen::Index i = 0; i < mean_.size(); ++i) {
      mean_[i] = mean[static_cast<std::size_t>(i)];
    }
  }

  // l. 19: out = alpha o + (1 - alpha) v-bar.
  void finish(std::span<float> out) {
    for (Eigen::Index h = 0; h < outputs_.rows(); ++h) {
      normalise<double>(states_[static_cast<std::size_t>(h)], output(h));
      const row_vector blended = kept_[h] * outputs_.row(h) + (1.0 - kept_[h]) * mean_;
      for (Eigen::Index i = 0; i < blended.size(); ++i) {
        out[static_cast<std::size_t>(h * blended.size() + i)] = static_cast<float>(blended[i]);
      }
    }
  }

 private:
  std::span<double> output(Eigen::Index h) {
    return {outputs_.row(h).data(), static_cast<std::size_t>(outputs_.cols())};
  }

  static double scale(const attention::query_group& q) {
    return q.logits.scale_for<double>(Format::k_dim);
  }

  // products(h, t) += q_h[i] K[t, i] over the wanted (t, i) of one page.
  template <class Pages>
  void add_products(const page_read& read, const access_plan& plan,
                    const layout::head_pages& /*head*/, const Pages& pages,
                    matrix& products) const {
    const auto page = pages(read);
    plan.tokens(read).for_each([&](std::uint32_t t) {
      plan.dims(read).for_each([&](std::uint32_t i) {
        const double k = static_cast<double>(page(t, i));
        products.col(read.token_tile * page.shape.tokens + t) +=
            k * queries_.col(read.dim_tile * page.shape.dims + i);
      });
    });
  }

  Eigen::Index group_ = 1;
  matrix queries_;                             // [group, k_dim]
  std::vector<softmax_state<double>> states_;  // [group]
  matrix outputs_;                             // [group, v_dim]
  row_vector kept_;                            // alpha [group]
  row_vector mean_;                            // v-bar [v_dim]
  std::deque<matrix> approximations_;          // one a score operation of this query
  std::vector<order_key_t<double>> keys_;
};

struct path {
  template <class Format>
  using arithmetic = reference::arithmetic<Format>;
};

}  // namespace instinfer::reference
