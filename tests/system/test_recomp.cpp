#include <doctest/doctest.h>

#include "instinfer/system/gpu_time.hpp"
#include "instinfer/system/recomp.hpp"
#include "instinfer/system/spec/models.hpp"

namespace instinfer::test_recomp {

using namespace system;

TEST_CASE("Recomp runs at the GPU's speed while the cache fits, and pays for what does not") {
  const recomp_system few(opt_13b, paper_server(), paper_opt_workload(8));
  CHECK(few.resident(2048) == 8);
  const recomp_system many(opt_13b, paper_server(), paper_opt_workload(256));
  // (0.9 x 48 - 25.7) GB less activations, over 2048 x 819,200 B.
  CHECK(many.resident(2048) == 10);
  CHECK(few.step(2048).time.total_s() ==
        doctest::Approx(gpu_time(rtx_a6000).model_s(opt_13b, 8) +
                        40 * gpu_time(rtx_a6000).decode_attention_s(opt_13b, 8, 2048)));
  CHECK(many.step(2048).time.total_s() > 100 * few.step(2048).time.total_s());
  // 26 groups of at most 10. The tokens of 246 sequences pass again through the matrices, and each
  // sees half of its context on average.
  const gpu_time gpu(rtx_a6000);
  const double again = (256 - 10) * xeon_5320.software.recomputed_tokens;
  const double attention_flops = again * 40 * 4.0 * 5120 * 2048 / 2;
  CHECK(many.step(2048).time.total_s() ==
        doctest::Approx(26 * gpu.model_s(opt_13b, 10) +
                        40 * gpu.decode_attention_s(opt_13b, 256, 2048) +
                        40 * gpu.layer_s(opt_13b, again) +
                        attention_flops / (154.8e12 * gpu_efficiency{}.arithmetic))
            .epsilon(1e-12));
}

}  // namespace instinfer::test_recomp
