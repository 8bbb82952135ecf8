#pragma once
// Observers of a machine: the flash path charges what they see, tests and traces record it.

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

// An observer of a machine. chose() gets every selection, and accessed() every plan before it is
// executed. An observer may also have scored(op, rows, row_dim, heads): `heads` queries are scored
// against that many rows of a summary.
template <class O>
concept Observer = requires(O& o, operation op, index_view chosen, const access_plan& plan) {
  o.chose(op, chosen);
  o.accessed(op, plan);
};

// Ignores everything. It serves a machine, and an engine, which asks for one observer per KV head.
struct no_observer {
  no_observer head(std::uint32_t /*kv_head*/) const { return {}; }
  void chose(operation, index_view) {}
  void accessed(operation, const access_plan&) {}
};

}  // namespace instinfer::attention
