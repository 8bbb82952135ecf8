// expect: instinfer: head size must be a multiple of 16 up to 256, see core/shape.hpp
// A head size that no whole number of 16-lane vectors makes up.
#include "instinfer/cpu/engine.hpp"

#ifdef CONTROL
inline constexpr int head_dim = 80;
#else
inline constexpr int head_dim = 72;
#endif

using format = instinfer::kv_format<instinfer::fp16, head_dim>;

void use() { instinfer::cpu::engine<instinfer::insta, format> engine({}, {}); }
