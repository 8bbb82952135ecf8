#pragma once
// Summary: the smallest and the largest key of a group of tokens, per dim: a box that bounds every
// logit in the group (Quest).

#include <algorithm>
#include <string>
#include <vector>

#include "instinfer/core/index_set.hpp"
#include "instinfer/core/scratch.hpp"
#include "instinfer/summaries/concepts.hpp"

namespace instinfer::attention {

// A group is Tokens consecutive tokens. Bounds are keys, so storing them as keys rounds nothing.
// When a token is forgotten, the box of its group stays a bound, but may be wider than needed.
template <std::uint32_t Tokens = 16>
struct page_bounds {
  static_assert(
      Tokens > 0,
      "instinfer: page_bounds needs at least one token a group, see summaries/page_bounds.hpp");

  template <class Format>
  class state {
   public:
    using element = typename Format::element;
    static constexpr std::size_t k_dim = Format::k_dim;
    static constexpr std::size_t row_dim = 2 * k_dim;
    static constexpr std::size_t row_bytes = row_dim * sizeof(element);

    void reserve(std::uint32_t count) {
      reserve_scratch(boxes_, ((tokens_ + count + Tokens - 1) / Tokens) * row_dim);
    }

    // Does not allocate if reserve() took the memory.
    void append(std::span<const element> k, std::span<const element> /*v*/) noexcept {
      if (tokens_++ % Tokens == 0) {
        boxes_.insert(boxes_.end(), k.begin(), k.end());
        boxes_.insert(boxes_.end(), k.begin(), k.end());
        return;
      }
      element* largest = boxes_.data() + boxes_.size() - row_dim;
      element* smallest = largest + k_dim;
      for (std::size_t i = 0; i < k_dim; ++i) {
        if (to_float(k[i]) > to_float(largest[i])) {
          largest[i] = k[i];
        }
        if (to_float(k[i]) < to_float(smallest[i])) {
          smallest[i] = k[i];
        }
      }
    }
    void forget(std::span<const element> /*k*/, std::span<const element> /*v*/) noexcept {
      ++forgotten_;
    }
    std::uint64_t bytes() const { return (chunks() - forgotten_ / Tokens) * row_bytes; }

    std::uint32_t chunks() const { return static_cast<std::uint32_t>(boxes_.size() / row_dim); }
    index_run members(std::uint32_t chunk) const {
      return {chunk * Tokens, std::min((chunk + 1) * Tokens, tokens_)};
    }

    std::uint32_t weight(std::uint32_t chunk) const { return members(chunk).size(); }

    // [largest | smallest] . [max(q, 0) | min(q, 0)] = sum over dims of max(q * smallest, q *
    // largest).
    std::span<const float> row(std::uint32_t chunk, std::span<float> scratch) const {
      std::ranges::transform(std::span(boxes_).subspan(chunk * row_dim, row_dim), scratch.begin(),
                             [](element x) { return to_float(x); });
      return scratch;
    }
    static void prepare(std::span<const float> q, std::span<float> out) {
      for (std::size_t i = 0; i < k_dim; ++i) {
        out[i] = std::max(q[i], 0.0f);
        out[k_dim + i] = std::min(q[i], 0.0f);
      }
    }

    static std::string name() { return "page_bounds of " + std::to_string(Tokens); }
    void each_part(auto&& file) { file(boxes_, tokens_, forgotten_); }

   private:
    std::vector<element> boxes_;  // [group, largest and smallest, k_dim]
    std::uint32_t tokens_ = 0;    // number of tokens ever appended
    std::uint32_t forgotten_ = 0;
  };
};

}  // namespace instinfer::attention
