// expect: instinfer: on a GPU the query heads of a group select together
// A policy whose query heads select alone: the kernels choose once for the group.
#include "instinfer/cuda.cuh"
#include "instinfer/methods/per_query_head.hpp"

#ifdef CONTROL
using policy = instinfer::attention::sparf;
#else
using policy = instinfer::attention::per_query_head<instinfer::attention::sparf>;
#endif

using mine = instinfer::design<policy, instinfer::layout::dual<>, instinfer::flash::instcsd,
                               instinfer::transfer::in_storage>;

void use(const instinfer::cuda::engine<mine>& engine) { (void)engine.attention(); }
