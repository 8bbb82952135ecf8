#pragma once
// Watching a machine at work: what the flash path charges, and tests and traces record.

#include <cstdint>

#include "instinfer/core/access_plan.hpp"

namespace instinfer::attention {

enum class operation : std::uint8_t {
  all_tokens,
  top_dims,
  score_dims,
  top_tokens,
  fold,
  choose_tokens,  // by position, or as members of chunks
  top_chunks,
  score_chunks,
  score_tokens,
  fold_scored
};

// Watches a machine at work. chose() sees every selection, accessed() every plan, before it is carried out. An observer may
// also have scored(op, rows, row_dim, heads): rows of a summary that `heads` queries are scored against.
template <class O>
concept Observer = requires(O& o, operation op, index_view chosen, const access_plan& plan) {
  o.chose(op, chosen);
  o.accessed(op, plan);
};

// Watches nothing: for a machine, and for an engine, which asks for one observer a KV head.
struct no_observer {
  no_observer head(std::uint32_t /*kv_head*/) const { return {}; }
  void chose(operation, index_view) {}
  void accessed(operation, const access_plan&) {}
};

}  // namespace instinfer::attention
