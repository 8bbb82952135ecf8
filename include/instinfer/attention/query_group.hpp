#pragma once
// The queries that one machine serves: the group of one KV head.

#include <cstdint>
#include <span>
#include <string>

#include "instinfer/core/index_algebra.hpp"
#include "instinfer/core/logit_bias.hpp"
#include "instinfer/core/logit_rule.hpp"
#include "instinfer/summaries/index_query.hpp"

namespace instinfer::attention {

struct query_group {
  std::span<const float> values;  // [group, k_dim]
  std::uint32_t group = 1;
  logit_rule logits;
  index_query index{};
  // For a part of a group: its first head in the group that an arithmetic's begin() was given.
  std::uint32_t first_head = 0;
  // The head size that the caller knows; the rest of each row is zeros. 0: the rows have no rest.
  std::uint32_t true_dims = 0;
  logit_bias bias{};                     // of the rows
  const index_set* shown = nullptr;      // tokens that may be seen; null: all
  std::span<const float> sink_logits{};  // of row r: entry r % size; empty: none

  // Adds those of the live tokens [first, last) that the query sees to `tokens`.
  void visible(std::uint32_t first, std::uint32_t last, index_set& tokens) const {
    if (shown == nullptr) {
      logits.visible(first, last, tokens);
      return;
    }
    const auto runs = logits.visible_runs(first, last);
    add_intersection({runs, runs[0].size() + runs[1].size()}, *shown, tokens);
  }

  // The logit of row h and a token from the scaled product: soft cap, then bias.
  template <class T>
  T logit(T scaled, std::uint32_t h, std::uint32_t token) const {
    const T capped = logits.capped(scaled);
    return bias ? bias.row(h).added_to(capped, token) : capped;
  }

  std::uint32_t dims() const {
    return true_dims > 0 ? true_dims : static_cast<std::uint32_t>(values.size() / group);
  }
  std::uint32_t index_heads() const {
    return index.weights.empty() ? group : static_cast<std::uint32_t>(index.weights.size());
  }
  // The index queries, or the group's own queries. Throws bad_argument unless they are
  // [index_heads, dims], own queries without the zeros at the end of their rows.
  index_query index_of_dims(int dims) const {
    const std::size_t got =
        index.queries.empty() ? std::size_t{group} * this->dims() : index.queries.size();
    require(got == std::size_t{index_heads()} * static_cast<std::size_t>(dims), [&] {
      return "attend: index queries must be [" + std::to_string(index_heads()) + ", " +
             std::to_string(dims) + "], got " + std::to_string(got) + " values";
    });
    return {index.queries.empty() ? values : index.queries, index.weights};
  }

  std::span<const float> head(std::uint32_t h) const {
    const std::size_t k_dim = values.size() / group;
    return values.subspan(h * k_dim, k_dim);
  }
};

}  // namespace instinfer::attention
