// expect: instinfer: V of latent rows is a part of K by token, which dim_indexed does not store
// A layout without K by token, for rows that hold V.
#include "instinfer/instinfer.hpp"

#ifdef CONTROL
using layout_policy = instinfer::layout::dual<>;
#else
using layout_policy = instinfer::layout::dim_indexed<>;
#endif

using format = instinfer::latent_format<instinfer::bf16, 128, 64>;
using mine = instinfer::design<instinfer::attention::sparf, layout_policy,
                               instinfer::flash::instcsd, instinfer::transfer::in_storage>;

void use() { instinfer::flash::engine<mine, format> engine({}, {}); }
