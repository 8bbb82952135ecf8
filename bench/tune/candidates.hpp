#pragma once
// The tunings that ./dev bench tune tries, one knob at a time. Each kind of attend depends on other
// knobs, so candidate i of every kind is compiled in one kernel.

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <span>

#include <instinfer/cpu/tuning-inl.hpp>

namespace instinfer::bench {

using cpu::tuning;

constexpr cpu::row_prefetch prefetch_of(std::uint32_t bytes, cpu::cache_level to) {
  return {.k = {.bytes = bytes, .rows = 1}, .v = {.bytes = bytes, .rows = 1}, .to = to};
}

// For dense attention with one query head a KV head.
inline constexpr tuning for_one_head[] = {{.one_head = prefetch_of(1024, cpu::cache_level::l1)},
                                          {.one_head = prefetch_of(2048, cpu::cache_level::l1)},
                                          {.one_head = prefetch_of(2048, cpu::cache_level::l2)},
                                          {.one_head = prefetch_of(4096, cpu::cache_level::l1)},
                                          {.one_head = prefetch_of(4096, cpu::cache_level::l2)},
                                          {.one_head = prefetch_of(8192, cpu::cache_level::l1)},
                                          {.one_head = prefetch_of(8192, cpu::cache_level::l2)},
                                          {.one_head = prefetch_of(0, cpu::cache_level::none)},
                                          {.by_turns = false}};
// For dense attention of groups.
inline constexpr tuning for_groups[] = {{.group = prefetch_of(4096, cpu::cache_level::l1)},
                                        {.group = prefetch_of(8192, cpu::cache_level::l1)},
                                        {.group = prefetch_of(8192, cpu::cache_level::l2)},
                                        {.group = prefetch_of(16384, cpu::cache_level::l1)},
                                        {.group = prefetch_of(16384, cpu::cache_level::l2)},
                                        {.group = prefetch_of(32768, cpu::cache_level::l1)},
                                        {.group = prefetch_of(32768, cpu::cache_level::l2)},
                                        {.group = prefetch_of(0, cpu::cache_level::none)},
                                        {.heads = std::min(4u, cpu::heads_at_once)}};
// For scattered rows.
inline constexpr tuning for_scattered[] = {{.scattered = cpu::cache_level::l1},
                                           {.scattered = cpu::cache_level::l3},
                                           {.scattered = cpu::cache_level::none}};
// For all.
inline constexpr tuning for_all[] = {{.block_rows = 32}};

// A kind of attend: its candidates, and the knobs that they may change.
struct kind {
  const char* name;
  std::span<const tuning> candidates;
  void (*copy)(const tuning& from, tuning& to);
};
inline constexpr kind kinds[] = {
    {"one query head", for_one_head,
     [](const tuning& from, tuning& to) {
       to.one_head = from.one_head;
       to.by_turns = from.by_turns;
     }},
    {"groups", for_groups,
     [](const tuning& from, tuning& to) {
       to.group = from.group;
       to.heads = from.heads;
     }},
    {"scattered rows", for_scattered,
     [](const tuning& from, tuning& to) { to.scattered = from.scattered; }},
    {"all", for_all, [](const tuning& from, tuning& to) { to.block_rows = from.block_rows; }}};
inline constexpr std::size_t kind_of_all = std::size(kinds) - 1;

// Kernel 0 is the default, the last one is the candidate of all kinds. Code that is not optimised
// shows only that it compiles, so it has few of them.
#if defined(__OPTIMIZE__)
inline constexpr std::size_t kernels = 2 + std::max(std::size(for_one_head), std::size(for_groups));
#else
inline constexpr std::size_t kernels = 3;
#endif

constexpr tuning kernel(std::size_t i) {
  tuning t;
  if (i == kernels - 1) {
    return for_all[0];
  }
  for (std::size_t k = 0; k < kind_of_all; ++k) {
    if (i > 0 && i <= kinds[k].candidates.size()) {
      kinds[k].copy(kinds[k].candidates[i - 1], t);
    }
  }
  return t;
}
// The kernel that has candidate c of a kind; `kernels` if it is not compiled.
constexpr std::size_t kernel_of(std::size_t k, std::size_t c) {
  return k == kind_of_all ? kernels - 1 : c + 1 < kernels - 1 ? c + 1 : kernels;
}

}  // namespace instinfer::bench
