// expect: instinfer: a codec of groups needs head sizes that its groups divide, see codec/int4_groups.hpp
// Groups of 64 values along d, and a head size of 80.
#include "instinfer/instinfer.hpp"

#ifdef CONTROL
inline constexpr int head_dim = 192;
#else
inline constexpr int head_dim = 80;
#endif

using format = instinfer::kv_format<instinfer::int4_groups<>, head_dim>;

void use() { instinfer::flash::engine<instinfer::insta, format> engine({}, {}); }
