// expect: instinfer: the CUDA path has no kernel for fused or latent rows
// A layout with K and V of a token in one page.
#include "instinfer/cuda.cuh"
#include "instinfer/layout/fused.hpp"

#ifdef CONTROL
using rows = instinfer::layout::token_indexed<>;
#else
using rows = instinfer::layout::fused<>;
#endif

using mine = instinfer::design<instinfer::attention::dense, rows, instinfer::flash::instcsd,
                               instinfer::transfer::in_storage>;

void use(const instinfer::cuda::engine<mine>& engine) { (void)engine.attention(); }
