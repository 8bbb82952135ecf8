#pragma once
// HGCA in fp64 on whole matrices: a window by recency, context by a moving average of past weights.

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/support/token_lists.hpp"

namespace instinfer::test {

struct hgca_settings {
  int window = 1024;
  int block = 64;
  int least = 10;  // kept of an evicted block, at least
  double alpha = 0.5;
  double beta = 0.5;
  bool global = false;  // weights relative to window and context, not to the window alone
};

// One query head over its own K and V.
class transcribed_hgca {
 public:
  explicit transcribed_hgca(const hgca_settings& how) : how_{how} {}

  struct step_result {
    row_vector out;
    token_list tokens;  // attended: context and window
  };

  // Attends token t, the newest row of K and V that counts.
  step_result step(const row_vector& q, const matrix& K, const matrix& V, int t) {
    const int length = t - first_;
    if (length + 1 > how_.window) {
      evict((length + 1 - how_.window + how_.block) / how_.block * how_.block, length);
    }
    weight_.push_back(0);
    const token_list window = tokens_from_to(first_, t + 1);
    step_result result{row_vector::Zero(V.cols()), joined(context_, window)};
    row_vector logits(static_cast<Eigen::Index>(result.tokens.size()));
    for (Eigen::Index i = 0; i < logits.size(); ++i) {
      logits[i] = q.dot(K.row(result.tokens[static_cast<std::size_t>(i)])) /
                  std::sqrt(static_cast<double>(q.size()));
    }
    const row_vector all = test::defined_softmax(logits);
    const row_vector local =
        test::defined_softmax(logits.tail(static_cast<Eigen::Index>(window.size())));
    for (Eigen::Index i = 0; i < all.size(); ++i) {
      result.out += all[i] * V.row(result.tokens[static_cast<std::size_t>(i)]);
    }
    const auto context = static_cast<Eigen::Index>(context_.size());  // all of it is older
    for (std::size_t i = 0; i < window.size(); ++i) {
      const auto at = static_cast<Eigen::Index>(i);
      const double p = how_.global ? all[context + at] : local[at];
      const bool newest = window[i] == t;
      weight_[i] = newest ? p : how_.alpha * p + (1 - how_.alpha) * weight_[i];
    }
    return result;
  }

  const token_list& context() const { return context_; }
  int evicted() const { return first_; }
  const std::vector<double>& weights() const { return weight_; }  // of the window's tokens

 private:
  void evict(int count, int attended) {
    const row_vector weight =
        Eigen::Map<const row_vector>(weight_.data(), static_cast<Eigen::Index>(count));
    const auto salient = static_cast<int>((weight.array() >= how_.beta / attended).count());
    for (const int i : largest(weight, std::min(count, std::max(how_.least, salient)))) {
      context_.push_back(first_ + i);
    }
    weight_.erase(weight_.begin(), weight_.begin() + count);
    first_ += count;
  }

  hgca_settings how_;
  int first_ = 0;  // oldest token of the window
  token_list context_;
  std::vector<double> weight_;  // moving averages, of the window's tokens
};

}  // namespace instinfer::test
