#pragma once
// The probe of scattered reads: the very rows and columns that a method's plans read, in their
// order, without arithmetic.

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include <benchmark/benchmark.h>

#include "pieces.hpp"
#include "processor.hpp"

namespace instinfer::bench {

// The least time in which the workers of a pool read the pieces, each an equal share of the bytes:
// without prefetches, and with those to L1 and to L2 at several distances.
inline double gather_seconds(std::span<const piece> pieces, const worker_pool& pool) {
  const std::size_t workers = pool.workers();
  std::size_t bytes = 0;
  for (const piece& p : pieces) {
    bytes += p.bytes;
  }
  std::vector<std::span<const piece>> parts;
  std::size_t first = 0;
  std::size_t before = 0;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    before += pieces[i].bytes;
    if (before * workers >= bytes * (parts.size() + 1)) {
      parts.push_back(pieces.subspan(first, i + 1 - first));
      first = i + 1;
    }
  }
  double best = 1e9;
  std::vector<std::uint8_t> read(parts.size());
  const auto measure = [&]<cpu::cache_level To>(std::size_t ahead) {
    best = std::min(best, best_seconds(pool, [&] {
                      pool.for_each(parts.size(), [&](std::size_t i, std::size_t) {
                        read[i] = read_pieces<To>(parts[i], ahead);
                      });
                    }));
  };
  measure.template operator()<cpu::cache_level::none>(0);
  for (const std::size_t ahead : {2048, 8192, 32768}) {
    measure.template operator()<cpu::cache_level::l1>(ahead);
    measure.template operator()<cpu::cache_level::l2>(ahead);
  }
  benchmark::DoNotOptimize(read.data());
  return best;
}

}  // namespace instinfer::bench
