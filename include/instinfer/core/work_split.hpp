#pragma once
// How the heads of a batch are dealt to workers: whole ones, longest first; and the longest of all page range by page range
// to everybody, where a whole one would keep the others waiting.

#include <algorithm>
#include <cstdint>
#include <span>
#include <tuple>
#include <vector>

#include "instinfer/core/scratch.hpp"

namespace instinfer {

// One KV head of one request of a batch.
struct head_job {
  std::uint32_t request = 0;
  std::uint32_t kv_head = 0;
  std::uint64_t bytes = 0;  // K and V of its visible tokens
};

// Waiting for so little is not worth a meeting of all workers: 256 KiB are 10 us at 25 GB/s (assumed; what a thread pool
// takes to start and join).
inline constexpr std::uint64_t least_split_bytes = 256 << 10;

// Bytes of the busiest of `workers` that take whole jobs from the front of the list, one by one as they get idle.
inline std::uint64_t busiest_worker_bytes(std::span<const head_job> jobs, std::uint32_t workers,
                                          std::vector<std::uint64_t>& heap) {
  heap.assign(workers, 0);
  const auto busier = [](std::uint64_t a, std::uint64_t b) {
    return a > b;
  };  // the least busy on top
  std::uint64_t most = 0;
  for (const head_job& job : jobs) {
    std::ranges::pop_heap(heap, busier);
    heap.back() += job.bytes;
    most = std::max(most, heap.back());
    std::ranges::push_heap(heap, busier);
  }
  return most;
}

// Sorts the jobs, longest first, ties in the order of requests and heads. Returns how many of the first ones to cut into
// `parts` page ranges: as few as leave no worker waiting for more than 1/16 of the time when `parts` workers take the rest.
// Depends on the jobs and on `parts` alone. `heap` is scratch.
inline std::size_t deal(std::span<head_job> jobs, std::uint32_t parts,
                        std::vector<std::uint64_t>& heap) {
  std::ranges::sort(jobs, [](const head_job& a, const head_job& b) {
    return std::tie(b.bytes, a.request, a.kv_head) < std::tie(a.bytes, b.request, b.kv_head);
  });
  std::uint64_t total = 0;
  for (const head_job& job : jobs) {
    total += job.bytes;
  }
  const std::uint64_t bearable = std::max(total / parts / 16, least_split_bytes);
  std::size_t cut = 0;
  for (std::uint64_t whole = total; parts > 1 && cut < jobs.size(); ++cut) {
    if (busiest_worker_bytes(jobs.subspan(cut), parts, heap) <= whole / parts + bearable) {
      break;
    }
    whole -= jobs[cut].bytes;
  }
  return cut;
}

}  // namespace instinfer
