#pragma once
// The arguments and results of an attend call, apart from the cache: requests, receipt, workspace,
// observers.

#include <cstdint>
#include <vector>

#include "instinfer/attention/machine_scratch.hpp"
#include "instinfer/attention/observer.hpp"
#include "instinfer/core/traffic.hpp"
#include "instinfer/engine/attend_jobs.hpp"

namespace instinfer {

// The traffic of a call.
struct receipt {
  instinfer::traffic traffic;
};

// Scratch of attend: one machine scratch and one arithmetic per worker. It keeps its memory.
// Attends that run at the same time need separate workspaces.
template <class Path, class Format>
struct workspace : attend_jobs {
  struct worker {
    typename Path::template arithmetic<typename Format::padded> arithmetic;
    attention::machine_scratch machine;
    std::vector<float> q;            // [queries, group, k_dim] of one head, with padded rows
    std::vector<float> out;          // [queries, group, v_dim], with padded rows
    std::vector<float> log_sum_exp;  // [queries, group]
  };
  std::vector<worker> workers;
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
