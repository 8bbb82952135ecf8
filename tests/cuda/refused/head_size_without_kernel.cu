// expect: instinfer: the CUDA path stores fp16 or bf16 with head sizes 64, 128 or 256
// A head size for which the CUDA path has no kernel.
#include "instinfer/cuda.cuh"

#ifdef CONTROL
using format = instinfer::kv_format<instinfer::bf16, 64>;
#else
using format = instinfer::kv_format<instinfer::bf16, 96>;
#endif

void use(const instinfer::cuda::engine<instinfer::insta, format>& engine) {
  (void)engine.attention();
}
