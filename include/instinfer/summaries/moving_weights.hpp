#pragma once
// Summary: moving averages of the attention weights of a window in fast memory, and the older
// tokens that were salient when they left the window (HGCA).

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "instinfer/core/budget.hpp"
#include "instinfer/core/errors.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/core/top_k.hpp"
#include "instinfer/summaries/concepts.hpp"

namespace instinfer::attention {

struct salience_rule {
  double alpha = 0.5;  // weight of the newest observation in the moving average
  double beta = 0.5;  // a token is salient if its average is at least beta times the uniform weight
  std::uint32_t least_kept = 10;  // at least this many of the tokens judged together are kept
  budget most_kept = 1.0;         // of all older tokens, at most this share is kept

  // Throws bad_argument unless alpha is in (0, 1], beta is finite and not negative, and most_kept
  // is a budget.
  void validate() const {
    require(alpha > 0.0 && alpha <= 1.0 && beta >= 0.0 && std::isfinite(beta), [&] {
      return "salience_rule: alpha must lie in (0, 1] and beta be finite and >= 0, got " +
             std::to_string(alpha) + " and " + std::to_string(beta);
    });
    (void)most_kept.of(0xFFFF'FFFFu, "most_kept");
  }
};

struct moving_weights {
  template <class Format>
  class state {
   public:
    using element = typename Format::element;
    static constexpr bool learns = true;
    static constexpr bool ignores_values = true;

    void reserve(std::uint32_t count) { reserve_scratch(window_, window_.size() + count); }
    void append(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {
      window_.push_back({});
      ++tokens_;
      ++unseen_;
    }
    // Forgets the oldest live token: one of the older tokens, or of the window if there are none.
    void forget(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {
      if (first_ == window_first_) {
        window_.erase(window_.begin());
        ++window_first_;
      } else if (context_.count() > 0 && context().runs().front().first == first_) {
        context_.drop_first();
      }
      ++first_;
      unseen_ = std::min(unseen_, tokens_ - window_first_);
    }
    // As heavy_hitters: only tokens that no query has seen can be taken back.
    bool may_truncate(std::uint32_t tokens) const { return tokens_ - tokens <= unseen_; }
    void truncate(std::uint32_t n, const auto& /*all*/) noexcept {
      unseen_ -= tokens_ - n;
      tokens_ = n;
      window_.resize(n - window_first_);
    }
    void rebase(std::uint32_t n) noexcept {
      context_.move_down(n);
      first_ -= n;
      window_first_ -= n;
      tokens_ -= n;
    }
    std::uint64_t bytes() const {
      return window_.size() * sizeof(observed) + context().runs().size_bytes();
    }

    index_run window() const { return {window_first_, tokens_}; }
    index_run older() const { return {first_, window_first_}; }
    index_view context() const { return context_; }  // the salient older tokens
    double average(std::uint32_t token) const { return window_[token - window_first_].average; }

    // Whether the older tokens must be judged: tokens left the window before any query saw them, or
    // `every` queries came since the last judgement (0: this second rule is off).
    bool judgement_due(std::uint32_t every) const {
      return unjudged_ || (every > 0 && queries_ >= every && window_first_ > first_);
    }

    // Shrinks the window to `capacity` tokens by whole blocks, one more block than needed. A token
    // that leaves the window stays in the context if it is salient.
    void evict(std::uint32_t capacity, std::uint32_t block, const salience_rule& rule) {
      if (window().size() <= capacity) {
        return;
      }
      unseen_ = 0;
      const std::uint32_t excess = window().size() - capacity;
      const std::uint32_t leaving = std::min((excess + block) / block * block, window().size());
      const auto left = window_.begin() + leaving;
      if (std::any_of(window_.begin(), left, [](const observed& o) { return !o.seen; })) {
        unjudged_ = true;
      } else {
        weights_.clear();
        std::transform(window_.begin(), left, std::back_inserter(weights_),
                       [](const observed& o) { return o.average; });
        keep_salient(window_first_, attended_, rule);
      }
      window_.erase(window_.begin(), left);
      window_first_ += leaving;
    }

    // p: weights of exactly the window's tokens; their mean over the heads counts. `attended` is
    // the number of tokens among which the weights were shared.
    template <class Scores>
    void observe(const Scores& p, std::uint32_t attended, const salience_rule& rule) {
      attended_ = attended;
      ++queries_;
      unseen_ = 0;
      for (std::size_t i = 0; i < window_.size(); ++i) {
        const double now = mean_over_heads(p, i);
        observed& o = window_[i];
        o = {o.seen ? rule.alpha * now + (1.0 - rule.alpha) * o.average : now, true};
      }
    }

    // p: weights of exactly the older tokens. The context becomes the salient tokens among them.
    template <class Scores>
    void judge(const Scores& p, const salience_rule& rule) {
      weights_.resize(older().size());
      for (std::size_t i = 0; i < weights_.size(); ++i) {
        weights_[i] = mean_over_heads(p, i);
      }
      context_.clear();
      keep_salient(first_, older().size(), rule);
      unjudged_ = false;
      queries_ = 0;
    }

    static constexpr const char* name() { return "moving_weights"; }
    void each_part(auto&& file) {
      file(context_, window_, first_, window_first_, tokens_, attended_, queries_, unseen_,
           unjudged_);
    }
    bool fits(std::uint32_t first, std::uint32_t tokens, const auto& /*all*/) const {
      return first_ == first && tokens_ == tokens && first_ <= window_first_ &&
             window_first_ <= tokens_ && window_.size() == tokens_ - window_first_ &&
             context_.within(first_, window_first_) && unseen_ <= window_.size();
    }

   private:
    struct observed {
      double average = 0.0;
      bool seen = false;  // whether a query saw it

      void each_part(auto&& file) { file(average, seen); }
    };

    template <class Scores>
    static double mean_over_heads(const Scores& p, std::size_t i) {
      double sum = 0.0;
      for (std::size_t h = 0; h < p.heads(); ++h) {
        sum += static_cast<double>(p.head(h)[i]);
      }
      return sum / static_cast<double>(std::max<std::size_t>(1, p.heads()));
    }

    // Adds the tokens from `first` on with a weight in weights_ of at least beta / attended, and
    // always the least_kept tokens with the largest weight, as far as most_kept leaves room.
    void keep_salient(std::uint32_t first, std::uint32_t attended, const salience_rule& rule) {
      const double least = rule.beta / std::max(1u, attended);
      const auto salient = static_cast<std::uint32_t>(
          std::ranges::count_if(weights_, [&](double w) { return w >= least; }));
      // A share of all, so that small blocks do not round up one by one.
      const auto judged = static_cast<std::uint32_t>(weights_.size());
      const std::uint32_t most = rule.most_kept.of(first - first_ + judged, "most_kept");
      const std::uint32_t room = most - std::min(most, context_.count());
      index_set kept;
      top_k<double>(weights_, std::min(room, std::max(salient, rule.least_kept)), kept, keys_);
      kept.view().for_each([&](std::uint32_t i) { context_.add(first + i); });
    }

    index_set context_;
    std::vector<observed> window_;
    std::vector<double> weights_;  // weights of the tokens under judgement
    std::vector<order_key_t<double>> keys_;
    std::uint32_t first_ = 0;         // oldest live token
    std::uint32_t window_first_ = 0;  // oldest token of the window
    std::uint32_t tokens_ = 0;        // number of tokens ever appended
    std::uint32_t attended_ = 0;      // number of tokens in the last observation
    std::uint32_t queries_ = 0;       // queries since the last judgement
    std::uint32_t unseen_ = 0;        // newest tokens that no query has seen
    bool unjudged_ = false;
  };
};

}  // namespace instinfer::attention
