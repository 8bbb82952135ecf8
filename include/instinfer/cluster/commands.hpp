#pragma once
// What the host asks of a drive, and what the drive says when it is done.

#include <cstdint>

#include "instinfer/cluster/failure.hpp"
#include "instinfer/core/traffic.hpp"
#include "instinfer/store/layer/extents.hpp"

namespace instinfer::cluster {

// The drives that have done a command that another drive refuses get `undo`. truncate_copy, and
// prefill of methods with an index, work on a fork of the sequence; `commit` then frees the
// original.
enum class operation : std::uint32_t {
  open,
  fork,
  append,
  attend,
  prefill,
  build,
  reclaim,
  check_reclaim,
  reclaim_range,
  truncate,
  truncate_copy,
  save,
  load,
  set_policy,
  undo,
  commit,
  close
};

// The head of each command. What follows depends on the operation (cluster/drive.hpp).
struct command {
  operation what = operation::close;
  std::uint32_t slot = 0;         // of the sequence, on all ranks
  std::uint32_t origin = 0;       // fork: the slot of the original
  std::int32_t layer = 0;         // append, attend, prefill, build
  std::uint32_t requests = 0;     // attend
  std::uint32_t wants_out = 0;    // prefill
  std::uint64_t queries = 0;      // prefill; attend: of the batch, of which the drive has some
  store::reclaim_range layers{};  // reclaim, truncate: tokens_before in tokens of the drive
  std::uint64_t tokens = 0;       // truncate: positions of the drive that stay
};

// A request of an attend. Follow: q [queries, q_heads of the drive, k_dim]; the index query; the
// bias [queries, q_heads of the drive, bias_tokens]; the runs of the visible set, which are
// positions among the drive's own tokens of the sequence.
struct request_line {
  std::uint32_t slot = 0;
  std::uint32_t queries = 0;
  std::uint32_t causal = 1;
  std::uint32_t wants_log_sum_exp = 0;
  std::uint64_t first_query = 0;    // in the whole batch
  std::uint64_t positions = 0;      // of the sequence in this layer, on all drives together
  std::uint64_t index_values = 0;   // of index_query::queries
  std::uint64_t index_weights = 0;  // of index_query::weights
  std::uint64_t bias_tokens = 0;    // live tokens of the drive, if there is a bias
  std::uint32_t has_visible = 0;
  std::uint32_t visible_runs = 0;
};

// The head of each outcome; its failure follows, and otherwise the results.
struct outcome {
  failure::type failed = failure::type::none;
  instinfer::traffic traffic{};
  double busy_s = 0;       // measured: what the command took on the drive
  double modelled_ns = 0;  // of engines that model time
};

}  // namespace instinfer::cluster
