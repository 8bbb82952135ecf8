// expect: pages of codes are for cuda::attend
// An engine over pages of 8-bit codes, whose open pages would hold elements.
#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/cuda.cuh"

#ifdef CONTROL
using format = instinfer::kv_format<instinfer::fp16, 64>;
#else
using format = instinfer::kv_format<instinfer::fp8_pages<instinfer::fp16>, 64>;
#endif

void use(const instinfer::cuda::engine<instinfer::insta, format>& engine) {
  (void)engine.attention();
}
