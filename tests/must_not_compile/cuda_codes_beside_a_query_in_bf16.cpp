// expect: instinfer: the CUDA path stores K and V as fp16 or bf16, or as int8 or fp8 beside a query in fp16
// Codes become fp16 in registers, so the query is fp16, too.
#include "instinfer/cuda/kernels/attend_kernel.hpp"

#ifdef CONTROL
using query = instinfer::fp16;
#else
using query = instinfer::bf16;
#endif
static_assert(instinfer::cuda::tile_shape<query, 128, instinfer::fp8>::shared_bytes > 0);
