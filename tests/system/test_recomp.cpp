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
}

}  // namespace instinfer::test_recomp
