// The GPU's roofline by hand.

#include <doctest/doctest.h>

#include "instinfer/system/gpu_time.hpp"
#include "instinfer/system/spec/models.hpp"

namespace instinfer::test_gpu_time {

using namespace system;

TEST_CASE("the GPU's roofline") {
  const gpu_efficiency share;
  const gpu_time time(rtx_a6000);
  // One row: bound by the weights' bytes.
  const double weights = 2.0 * 5120 * 20'480;
  CHECK(
      time.gemm_s(1, 20'480, 5120) ==
      doctest::Approx(share.launch_s + (weights + 2.0 * (5120 + 20'480)) / (768e9 * share.memory)));
  // Many rows: bound by arithmetic.
  CHECK(
      time.gemm_s(8192, 20'480, 5120) ==
      doctest::Approx(share.launch_s + 2.0 * 8192 * 20'480 * 5120 / (154.8e12 * share.arithmetic)));
  // A tile of rows costs the arithmetic of one; where arithmetic binds, so does time.
  gpu_spec slow = rtx_a6000;
  slow.flops_per_s = 1e9;
  CHECK(gpu_time(slow).gemm_s(1, 512, 512) == gpu_time(slow).gemm_s(16, 512, 512));
  CHECK(gpu_time(slow).gemm_s(17, 512, 512) > gpu_time(slow).gemm_s(16, 512, 512));
  // Decode attention reads its cache once.
  CHECK(time.decode_attention_s(opt_13b, 16, 1536) ==
        doctest::Approx(share.launch_s + 16 * 1536 * 20'480.0 / (768e9 * share.memory)));
  // More rows, or a slower part, never less time.
  for (double m = 1; m < 4096; m *= 1.7) {
    CHECK(time.layer_s(opt_13b, m) <= time.layer_s(opt_13b, 1.7 * m));
    CHECK(gpu_time(h100_sxm).layer_s(opt_13b, m) <= time.layer_s(opt_13b, m));
    CHECK(gpu_time(rtx_a6000, 2).layer_s(opt_13b, m) <= time.layer_s(opt_13b, m));
  }
}

}  // namespace instinfer::test_gpu_time
