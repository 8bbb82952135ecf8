#pragma once
// A CTA finds where its share of a batch begins. It reads 4 bytes a sequence from L2; no plan
// kernel is needed.

#include <cstddef>

#include "instinfer/cuda/kernels/work_partition.hpp"

namespace instinfer::cuda {

struct found_share {
  cost_share share;
  std::uint32_t sequence = 0;  // where the share begins
  std::uint64_t at = 0;        // cost before that sequence
};

// All threads of the CTA call this, and all of them call cost(sequence). Each thread sums the costs
// of one chunk of sequences (shared memory: 8 bytes a thread). Then every thread goes to the chunk
// in which the share begins, and to the sequence in that chunk. Shared memory is free afterwards.
template <class Lane, class Cost>
constexpr found_share find_share(Lane& lane, std::uint32_t sequences, Cost&& cost) {
  auto* sums = reinterpret_cast<std::uint64_t*>(lane.shared());  // [threads]
  const std::uint32_t chunk = (sequences + lane.threads() - 1) / lane.threads();
  std::uint64_t sum = 0;
  for (std::uint32_t i = 0; i < chunk && lane.thread() * chunk + i < sequences; ++i) {
    sum += cost(lane.thread() * chunk + i);
  }
  sums[lane.thread()] = sum;
  lane.sync_block();
  std::uint64_t total = 0;
  const std::uint32_t chunks = chunk == 0 ? 0 : (sequences + chunk - 1) / chunk;
  for (std::uint32_t i = 0; i < chunks; ++i) {
    total += sums[i];
  }
  found_share found{share_costs(total, lane.blocks())};
  if (lane.block() < found.share.ctas) {
    const std::uint64_t low = found.share.begin(lane.block());
    std::uint32_t i = 0;
    for (; found.at + sums[i] <= low; ++i) {
      found.at += sums[i];
    }
    found.sequence = i * chunk;
    for (std::uint64_t c = cost(found.sequence); found.at + c <= low; c = cost(found.sequence)) {
      found.at += c;
      ++found.sequence;
    }
  }
  lane.sync_block();
  return found;
}

}  // namespace instinfer::cuda
