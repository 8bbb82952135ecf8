// expect: instinfer: a tuning has 16, 32 or 64 block_rows, 1, 2, 4 or 8 heads
// Blocks that register tiles do not fill.
#include "instinfer/cpu/engine.hpp"

#ifdef CONTROL
inline constexpr instinfer::cpu::tuning mine{.block_rows = 32};
#else
inline constexpr instinfer::cpu::tuning mine{.block_rows = 24};
#endif

using format = instinfer::kv_format<instinfer::fp16, 64>;

void use() { instinfer::cpu::engine<instinfer::insta, format, mine> engine({}, {}); }
