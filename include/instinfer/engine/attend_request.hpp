#pragma once
// One sequence of a batch, its queries, and where their results go.

#include <cstddef>
#include <cstdint>
#include <span>

#include "instinfer/core/index_set.hpp"
#include "instinfer/core/page_key.hpp"
#include "instinfer/summaries/index_query.hpp"

namespace instinfer {

// The queries of a sequence's newest tokens, oldest first. Tokens are appended before they attend.
// Each query sees the tokens up to its own, also among the queries of one call, unless causal is
// false.
struct attend_request {
  sequence seq;
  std::span<const float> q;        // [queries, q_heads, k_dim]
  std::span<float> out;            // [queries, q_heads, v_dim]
  attention::index_query index{};  // for policies with a trained indexer; of each query

  // [queries, q_heads], or empty if not asked for. Natural log of the sum by which `out` is
  // divided: of exp(logit) over what was folded; -inf if that is nothing. A policy that corrects
  // its result by the kept share alpha of the weights (blend_mean, attenuate) divides by its
  // estimate for all visible tokens, the sum over the kept ones / alpha. Results over disjoint
  // tokens merge by it: core/merge_attention.hpp.
  std::span<float> log_sum_exp{};

  // [queries, q_heads, live tokens], or empty: added to the logits, see core/logit_rule.hpp. Live
  // tokens are those that were not reclaimed, oldest first; entries of tokens that a query does not
  // see are not used. Finite: tokens are hidden by `visible`.
  std::span<const float> bias{};
  // Tokens that may be seen, or null for all: their positions, less the layer's base() in streams
  // so long that token numbers began anew (store/layer_cache.hpp). Those that are not live do not
  // matter. Pages without a visible token are not read. Windows stay as they are.
  const index_set* visible = nullptr;
  // false: the queries need no tokens of their own, and each sees what the newest token's query
  // sees. They stand at its position.
  bool causal = true;

  // Bytes that cross the link where attention is computed in the drive: q and `out` as elements of
  // this size, log_sum_exp as fp32.
  std::uint64_t query_bytes(std::size_t element) const { return q.size() * element; }
  std::uint64_t output_bytes(std::size_t element) const {
    return out.size() * element + log_sum_exp.size_bytes();
  }
};

}  // namespace instinfer
