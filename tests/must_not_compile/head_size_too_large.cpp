// expect: instinfer: head size must be a multiple of 16 up to 256, see core/shape.hpp
// A head size beyond the largest kernels.
#include "instinfer/cpu/engine.hpp"

#ifdef CONTROL
inline constexpr int head_dim = 256;
#else
inline constexpr int head_dim = 272;
#endif

using format = instinfer::kv_format<instinfer::fp16, head_dim>;

void use() { instinfer::cpu::engine<instinfer::insta, format> engine({}, {}); }
