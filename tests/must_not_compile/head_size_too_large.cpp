// expect: instinfer: head sizes go from 1 to 576, see core/shape.hpp
// A head size beyond the largest kernels.
#include "instinfer/cpu/engine.hpp"

#ifdef CONTROL
inline constexpr int head_dim = 576;
#else
inline constexpr int head_dim = 577;
#endif

using format = instinfer::kv_format<instinfer::fp16, head_dim>;

void use() { instinfer::cpu::engine<instinfer::insta, format> engine({}, {}); }
