#pragma once
// What is added to the logits of a query group: ALiBi's slopes, a table by distance, and a bias for
// each token.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>

namespace instinfer {

// The biases of one query row. Tokens are at or before `position`.
struct row_bias {
  float slope = 0.0f;
  std::span<const float> by_distance{};
  const float* by_token = nullptr;  // of the token at `first`
  std::uint32_t first = 0;
  std::uint32_t position = 0;

  template <class T>
  T of(std::uint32_t token) const {
    const std::uint32_t distance = position - token;
    T bias = -static_cast<T>(slope) * static_cast<T>(distance);
    if (!by_distance.empty()) {
      const std::size_t column = std::min<std::size_t>(distance, by_distance.size() - 1);
      bias += static_cast<T>(by_distance[column]);
    }
    if (by_token != nullptr) {
      bias += static_cast<T>(by_token[token - first]);
    }
    return bias;
  }
  // The logit with its bias, limited to the finite numbers.
  template <class T>
  T added_to(T logit, std::uint32_t token) const {
    constexpr T largest = std::numeric_limits<T>::max();
    return std::clamp(logit + of<T>(token), -largest, largest);
  }
};

// The biases of the queries of one KV head: rows [queries, heads], whose heads are query heads
// [first_head, first_head + heads) of q_heads. False if there are none.
struct logit_bias {
  std::span<const float> slopes{};       // [q_heads]
  std::span<const float> by_distance{};  // [q_heads, distances]
  std::span<const float> by_token{};     // [queries, q_heads, live tokens]
  std::uint32_t q_heads = 1;
  std::uint32_t first_head = 0;
  std::uint32_t heads = 1;
  std::uint32_t first = 0;      // the oldest live token
  std::uint32_t tokens = 0;     // one past the newest token
  std::uint32_t queries = 1;    // of the call
  bool causal = true;           // query i is at the token tokens - queries + i, else at the newest
  std::uint32_t first_row = 0;  // row 0 of the group is this row

  explicit operator bool() const {
    return !slopes.empty() || !by_distance.empty() || !by_token.empty();
  }

  // The same for the rows from `row` on.
  logit_bias from(std::uint32_t row) const {
    logit_bias later = *this;
    later.first_row += row;
    return later;
  }

  row_bias row(std::uint32_t r) const {
    const std::uint32_t query = (first_row + r) / heads;
    const std::size_t head = first_head + (first_row + r) % heads;
    const std::size_t distances = by_distance.size() / q_heads;
    return {.slope = slopes.empty() ? 0.0f : slopes[head],
            .by_distance = by_distance.subspan(head * distances, distances),
            .by_token = by_token.empty() ? nullptr
                                         : by_token.data() + (query * std::size_t{q_heads} + head) *
                                                                 std::size_t{tokens - first},
            .first = first,
            .position = tokens - 1 - (causal ? queries - 1 - query : 0)};
  }
};

}  // namespace instinfer
