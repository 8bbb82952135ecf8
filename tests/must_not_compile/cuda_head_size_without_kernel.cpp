// expect: instinfer: the CUDA path has kernels for head sizes 64, 128 and 256
// A head size for which the CUDA path has no kernel, seen by any compiler: kernels need no nvcc
// until they are launched.
#include "instinfer/cuda/kernels/attend_kernel.hpp"

#ifdef CONTROL
constexpr std::uint32_t bytes = instinfer::cuda::tile_shape<instinfer::fp16, 128>::shared_bytes;
#else
constexpr std::uint32_t bytes = instinfer::cuda::tile_shape<instinfer::fp16, 96>::shared_bytes;
#endif
static_assert(bytes > 0);
