#pragma once
// The arguments and results of an attend call, apart from the cache: requests, receipt, workspace,
// observers.

#include <cstdint>
#include <exception>
#include <span>
#include <vector>

#include "instinfer/attention/machine_scratch.hpp"
#include "instinfer/attention/observer.hpp"
#include "instinfer/core/page_key.hpp"
#include "instinfer/core/traffic.hpp"
#include "instinfer/core/work_split.hpp"
#include "instinfer/summaries/index_query.hpp"

namespace instinfer {

// The traffic of a call.
struct receipt {
  instinfer::traffic traffic;
};

// One sequence of a batch and the queries of its newest tokens, oldest first. Tokens are appended
// before they attend. Each query sees the tokens up to its own: causal, also among the queries of
// one call.
struct attend_request {
  sequence seq;
  std::span<const float> q;        // [queries, q_heads, k_dim]
  std::span<float> out;            // [queries, q_heads, v_dim]
  attention::index_query index{};  // for policies with a trained indexer; one query per call
};

// Scratch of attend: one machine scratch and one arithmetic per worker. It keeps its memory.
// Attends that run at the same time need separate workspaces.
template <class Path, class Format>
struct workspace {
  struct worker {
    typename Path::template arithmetic<Format> arithmetic;
    attention::machine_scratch machine;
    std::vector<float> q;    // [queries, group, k_dim] of one head
    std::vector<float> out;  // [queries, group, v_dim]
  };
  std::vector<worker> workers;
  std::vector<head_job> jobs;
  std::vector<std::uint64_t> loads;        // scratch of deal()
  std::vector<traffic> traffic_of;         // [jobs]
  std::vector<std::exception_ptr> failed;  // [jobs]
  std::vector<std::exception_ptr> part_failures;
  std::vector<std::size_t> out_at;  // [requests], start of each in `out`
  std::vector<float> out;           // of all requests
};

// An engine's observer provides one observer per KV head: by head(h), or for batches by
// head(request, h). These run at the same time if the parallel policy does.
using attention::no_observer;

template <class Watch>
decltype(auto) head_watch(Watch& watch, std::uint32_t request, std::uint32_t kv_head) {
  if constexpr (requires { watch.head(request, kv_head); }) {
    return watch.head(request, kv_head);
  } else {
    return watch.head(kv_head);
  }
}

}  // namespace instinfer
