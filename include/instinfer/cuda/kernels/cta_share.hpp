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
// of one span of sequences (shared memory: 8 bytes a thread). Then every thread goes to the span
// in which the share begins, and to the sequence in that span. Shared memory is free afterwards.
template <class Lane, class Cost>
constexpr found_share find_share(Lane& lane, std::uint32_t sequences, Cost&& cost) {
  auto* sums = reinterpret_cast<std::uint64_t*>(lane.shared());  // [threads]
  const std::uint32_t span = (sequences + lane.threads() - 1) / lane.threads();
  std::uint64_t sum = 0;
  for (std::uint32_t i = 0; i < span && lane.thread() * span + i < sequences; ++i) {
    sum += cost(lane.thread() * span + i);
  }
  sums[lane.thread()] = sum;
  lane.sync_block();
  std::uint64_t total = 0;
  const std::uint32_t spans = span == 0 ? 0 : (sequences + span - 1) / span;
  for (std::uint32_t i = 0; i < spans; ++i) {
    total += sums[i];
  }
  found_share found{share_costs(total, lane.blocks())};
  if (lane.block() < found.share.ctas) {
    const std::uint64_t low = found.share.begin(lane.block());
    std::uint32_t i = 0;
    for (; found.at + sums[i] <= low; ++i) {
      found.at += sums[i];
    }
    found.sequence = i * span;
    for (std::uint64_t c = cost(found.sequence); found.at + c <= low; c = cost(found.sequence)) {
      found.at += c;
      ++found.sequence;
    }
  }
  lane.sync_block();
  return found;
}

}  // namespace instinfer::cuda
