#pragma once
// Summary: a bounded set of tokens, each with the attention weight that it has received so far
// (H2O).

#include <algorithm>
#include <vector>

#include "instinfer/core/scratch.hpp"
#include "instinfer/core/top_k.hpp"
#include "instinfer/summaries/concepts.hpp"

namespace instinfer::attention {

struct heavy_hitters {
  template <class Format>
  class state {
   public:
    using element = typename Format::element;
    static constexpr bool learns = true;
    static constexpr bool ignores_values = true;

    void reserve(std::uint32_t count) {
      reserve_scratch(weights_, weights_.size() + count);
      kept_.reserve(1);  // new tokens are consecutive: one run
    }
    void append(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {
      kept_.add(tokens_++);
      weights_.push_back(0.0);
      ++unseen_;
    }
    // Forgets the oldest live token.
    void forget(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {
      if (kept_.count() > 0 && kept().runs().front().first == forgotten_) {
        kept_.drop_first();
        weights_.erase(weights_.begin());
      }
      ++forgotten_;
      unseen_ = std::min(unseen_, tokens_ - forgotten_);
    }
    // A query has shared its weight among the tokens that it saw, and others were dropped for them:
    // only tokens that no query has seen can be taken back.
    bool may_truncate(std::uint32_t tokens) const { return tokens_ - tokens <= unseen_; }
    void truncate(std::uint32_t n, const auto& /*all*/) noexcept {
      unseen_ -= tokens_ - n;
      tokens_ = n;
      kept_.drop_from(n);
      weights_.resize(kept_.count());
    }
    void rebase(std::uint32_t n) noexcept {
      kept_.move_down(n);
      tokens_ -= n;
      forgotten_ -= n;
    }
    std::uint64_t bytes() const { return weights_.size() * sizeof(double); }

    index_view kept() const { return kept_; }
    std::span<const double> weights() const { return weights_; }  // [kept]

    // p: weights of exactly the kept tokens. Sums them over the heads.
    template <class Scores>
    void add(const Scores& p) {
      unseen_ = 0;
      for (std::size_t h = 0; h < p.heads(); ++h) {
        std::ranges::transform(weights_, p.head(h), weights_.begin(),
                               [](double sum, auto x) { return sum + static_cast<double>(x); });
      }
    }

    // Keeps the `recent` newest tokens, and of the others the `heavy` tokens with the largest
    // weight; ties go to the older.
    void evict(std::uint32_t heavy, std::uint32_t recent) {
      if (kept_.count() <= std::uint64_t{heavy} + recent) {
        return;
      }
      const std::uint32_t older = kept_.count() - recent;
      index_set positions;
      top_k<double>(std::span(weights_).first(older), heavy, positions, keys_);
      positions.add(older, kept_.count());
      index_set survivors;
      add_at_positions(kept_, positions, survivors);
      std::size_t to = 0;
      positions.view().for_each([&](std::uint32_t from) { weights_[to++] = weights_[from]; });
      weights_.resize(to);
      kept_ = std::move(survivors);
    }

    static constexpr const char* name() { return "heavy_hitters"; }
    void each_part(auto&& file) { file(kept_, weights_, tokens_, forgotten_, unseen_); }
    bool fits(std::uint32_t first, std::uint32_t tokens, const auto& /*all*/) const {
      return tokens_ == tokens && forgotten_ == first && kept_.within(first, tokens) &&
             weights_.size() == kept_.count() && unseen_ <= tokens - first;
    }

   private:
    index_set kept_;
    std::vector<double> weights_;  // [kept]
    std::vector<order_key_t<double>> keys_;
    std::uint32_t tokens_ = 0;  // number of tokens ever appended
    std::uint32_t forgotten_ = 0;
    std::uint32_t unseen_ = 0;  // newest tokens that no query has seen
  };
};

}  // namespace instinfer::attention
