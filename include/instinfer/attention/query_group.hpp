#pragma once
// The queries that one machine serves: those of one KV head's group.

#include <cstdint>
#include <span>

#include "instinfer/core/logit_rule.hpp"

namespace instinfer::attention {

struct query_group {
  std::span<const float> values;  // [group, k_dim]
  std::uint32_t group = 1;
  logit_rule logits;

  std::span<const float> head(std::uint32_t h) const {
    const std::size_t k_dim = values.size() / group;
    return values.subspan(h * k_dim, k_dim);
  }
};

}  // namespace instinfer::attention
