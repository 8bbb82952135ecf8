#pragma once
// A plan cut into parts of about as many wanted elements, between tiles of tokens.

#include <cstdint>
#include <vector>

#include "instinfer/core/access_plan.hpp"
#include "instinfer/cpu/simd-inl.hpp"

HWY_BEFORE_NAMESPACE();
namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// Whether a new tile of tokens begins at read i: all its pages are folded, or scored, together. K pages lead, V pages follow.
inline bool begins_tile(std::span<const page_read> reads, std::size_t i) {
  return i == 0 ||
         (reads[i].kind != stream::v_by_token && (reads[i].token_tile != reads[i - 1].token_tile ||
                                                  reads[i - 1].kind == stream::v_by_token));
}

// Part p is reads [cuts[p], cuts[p + 1]); parts may be empty.
inline void cut_plan(const access_plan& plan, std::uint32_t parts, std::vector<std::size_t>& cuts) {
  const std::span<const page_read> reads = plan.reads();
  std::uint64_t all = 0;
  for (const page_read& read : reads) {
    all += read.wanted_elements();
  }
  cuts.assign(1, 0);
  std::uint64_t before = 0;
  for (std::size_t i = 0; i < reads.size(); ++i) {
    while (cuts.size() < parts && before * parts >= all * cuts.size() && begins_tile(reads, i)) {
      cuts.push_back(i);
    }
    before += reads[i].wanted_elements();
  }
  cuts.resize(std::size_t{parts} + 1, reads.size());
}

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
HWY_AFTER_NAMESPACE();
