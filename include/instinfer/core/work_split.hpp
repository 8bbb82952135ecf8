#pragma once
// The division of a batch's heads among workers.
// Heads go to workers longest first; a head that would leave others idle is split into page ranges.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "instinfer/core/scratch.hpp"

namespace instinfer {

// One KV head of one request in a batch.
struct head_job {
  std::uint32_t request = 0;
  std::uint32_t kv_head = 0;
  std::uint64_t bytes = 0;  // of K and V of the visible tokens
};

// Below this size, synchronisation costs more than splitting saves: 256 KiB take 10 us at 25 GB/s,
// the assumed time that a thread pool needs to start and join.
inline constexpr std::uint64_t least_split_bytes = 256 << 10;

// Bytes of the busiest of `workers` when idle workers take whole jobs one by one from the front of
// the list.
inline std::uint64_t busiest_worker_bytes(std::span<const head_job> jobs, std::uint32_t workers,
                                          std::vector<std::uint64_t>& heap) {
  heap.assign(workers, 0);
  // Heap order: the least busy worker is on top.
  const auto busier = [](std::uint64_t a, std::uint64_t b) { return a > b; };
  std::uint64_t most = 0;
  for (const head_job& job : jobs) {
    std::pop_heap(heap.begin(), heap.end(), busier);
    heap.back() += job.bytes;
    most = std::max(most, heap.back());
    std::push_heap(heap.begin(), heap.end(), busier);
  }
  return most;
}

// Sorts the jobs longest first, ties in the order of requests and heads. Returns how many of the
// first jobs to split among all workers: the fewest with which no worker waits for more than 1/16
// of the time when `workers` workers take the other jobs. `heap` is scratch.
inline std::size_t deal(std::span<head_job> jobs, std::uint32_t workers,
                        std::vector<std::uint64_t>& heap) {
  std::sort(jobs.begin(), jobs.end(), [](const head_job& a, const head_job& b) {
    if (a.bytes != b.bytes) {
      return a.bytes > b.bytes;
    }
    return a.request != b.request ? a.request < b.request : a.kv_head < b.kv_head;
  });
  std::uint64_t total = 0;
  for (const head_job& job : jobs) {
    total += job.bytes;
  }
  const std::uint64_t bearable = std::max(total / workers / 16, least_split_bytes);
  std::size_t cut = 0;
  // It ends: without jobs, the busiest worker has no bytes.
  for (std::uint64_t whole = total;
       busiest_worker_bytes(jobs.subspan(cut), workers, heap) > whole / workers + bearable; ++cut) {
    whole -= jobs[cut].bytes;
  }
  return cut;
}

}  // namespace instinfer
