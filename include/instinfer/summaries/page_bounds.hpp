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
// When a token is forgotten, the box of its group stays a bound, but may be wider than needed. When
// the newest tokens are taken back, the box of the last group is that of its live tokens.
// Boxes of groups without live tokens are freed, many at a time.
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
      reserve_scratch(boxes_, (groups_of(tokens_ + count) - freed_) * row_dim);
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
      forget_count(1);
      if (2 * std::size_t{first_chunk() - freed_} * row_dim >= boxes_.size()) {
        free_groups(first_chunk());
      }
    }
    void append_count(std::uint32_t count) noexcept { tokens_ += count; }
    void forget_count(std::uint32_t count) noexcept { forgotten_ += count; }

    std::uint32_t whole_before(std::uint32_t tokens) const {
      return std::max(tokens / Tokens * Tokens, forgotten_);
    }
    void truncate(std::uint32_t n, const auto& /*all*/) noexcept {
      tokens_ = n;
      if (boxes_.empty()) {
        return;
      }
      boxes_.resize((groups_of(n) - freed_) * row_dim);
      if (n % Tokens > 0) {  // no live token yet: the next one makes both bounds
        element* largest = boxes_.data() + boxes_.size() - row_dim;
        std::fill_n(largest, k_dim, from_float<element>(-largest_finite<element>));
        std::fill_n(largest + k_dim, k_dim, from_float<element>(largest_finite<element>));
      }
    }

    static constexpr std::uint32_t rebase_tokens = Tokens;
    void rebase(std::uint32_t n) noexcept {
      const std::uint32_t gone = n / Tokens;
      free_groups(boxes_.empty() ? freed_ : std::max(freed_, gone));
      freed_ = std::max(freed_, gone) - gone;
      tokens_ -= n;
      forgotten_ -= n;
    }

    // Without values: of the boxes that there would be.
    std::uint64_t bytes() const {
      return boxes_.empty() ? (chunks() - first_chunk()) * row_bytes
                            : boxes_.size() * sizeof(element);
    }

    std::uint32_t chunks() const { return groups_of(tokens_); }
    std::uint32_t first_chunk() const { return forgotten_ / Tokens; }
    index_run members(std::uint32_t chunk) const {
      return {chunk * Tokens, std::min((chunk + 1) * Tokens, tokens_)};
    }

    std::uint32_t weight(std::uint32_t chunk) const { return members(chunk).size(); }

    // [largest | smallest] . [max(q, 0) | min(q, 0)] = sum over dims of max(q * smallest, q *
    // largest).
    std::span<const float> row(std::uint32_t chunk, std::span<float> scratch) const {
      std::transform(stored_row(chunk), stored_row(chunk) + row_dim, scratch.begin(),
                     [](element x) { return to_float(x); });
      return scratch;
    }
    const element* stored_row(std::uint32_t chunk) const {
      return boxes_.data() + std::size_t{chunk - freed_} * row_dim;
    }
    static void prepare(std::span<const float> q, std::span<float> out) {
      for (std::size_t i = 0; i < k_dim; ++i) {
        out[i] = std::max(q[i], 0.0f);
        out[k_dim + i] = std::min(q[i], 0.0f);
      }
    }

    static std::string name() { return "page_bounds of " + std::to_string(Tokens); }
    void each_part(auto&& file) { file(boxes_, tokens_, forgotten_, freed_); }
    bool fits(std::uint32_t first, std::uint32_t tokens, const auto& /*all*/) const {
      return tokens_ == tokens && forgotten_ == first && freed_ <= first_chunk() &&
             boxes_.size() == std::size_t{chunks() - freed_} * row_dim;
    }

   private:
    // Frees the boxes of the groups before `first`.
    void free_groups(std::uint32_t first) noexcept {
      const std::size_t gone = std::size_t{first - freed_} * row_dim;
      boxes_.erase(boxes_.begin(), boxes_.begin() + static_cast<std::ptrdiff_t>(gone));
      freed_ = first;
    }
    static constexpr std::uint32_t groups_of(std::uint32_t tokens) {
      return tokens / Tokens + (tokens % Tokens > 0 ? 1 : 0);
    }

    std::vector<element> boxes_;  // [groups - freed, largest and smallest, k_dim]
    std::uint32_t tokens_ = 0;    // number of tokens ever appended
    std::uint32_t forgotten_ = 0;
    std::uint32_t freed_ = 0;  // groups whose boxes were freed: the oldest
  };
};

}  // namespace instinfer::attention
