#include <doctest/doctest.h>

#include "instinfer/system/deepspeed.hpp"
#include "instinfer/system/spec/models.hpp"

namespace instinfer::test_deepspeed {

using namespace system;

TEST_CASE("DeepSpeed swaps all of its cache when two copies overflow the host") {
  const deepspeed_system fits(opt_13b, paper_server(), paper_opt_workload(16));
  const deepspeed_system swaps(opt_13b, paper_server(), paper_opt_workload(32));
  CHECK(!fits.swaps(2048));
  CHECK(!swaps.swaps(1024));
  CHECK(swaps.swaps(2048));
  const double kv = 32 * 2048 * opt_13b.kv_bytes_per_token();
  CHECK(swaps.step(2048).time.kv_software_s ==
        doctest::Approx(kv / 4096 * xeon_5320.software.swapped_page_ns * 1e-9));
  // What is swapped passes the drive's link twice.
  const step_bytes moved = swaps.step(2048).bytes;
  CHECK(moved.flash_read == kv);
  CHECK(moved.drive_link == 2 * kv);
  CHECK(moved.gpu_link_kv == kv);
  CHECK(moved.kv_written == 32 * opt_13b.kv_bytes_per_token());
  CHECK(swaps.memory().fits());
  CHECK(!swaps.memory().host.fits());
}

TEST_CASE("DeepSpeed swaps nothing while two copies and the weights just fit") {
  server on = paper_server();
  on.host.memory_bytes = opt_13b.weight_bytes() + 2 * 16 * 1024 * opt_13b.kv_bytes_per_token();
  const deepspeed_system s(opt_13b, on, paper_opt_workload(16));
  CHECK(!s.swaps(1024));
  CHECK(s.swaps(1025));
}

TEST_CASE("DeepSpeed's GPU holds two layers of weights and KV, and a step's hidden states") {
  const deepspeed_system s(opt_13b, paper_server(), paper_opt_workload(16));
  // A row in, out, and both inside the block, q, k, v, and the FFN's 4 x 5120, in fp16.
  const double activations = 16.0 * 2 * (4 * 5120 + 3 * 5120 + 4 * 5120);
  const double layer_kv = 16 * 2048 * opt_13b.kv_bytes_per_token_layer();
  CHECK(s.memory().gpu.needed_bytes ==
        doctest::Approx(2 * opt_13b.layer_weight_bytes() + activations + 2 * layer_kv)
            .epsilon(1e-12));
}

}  // namespace instinfer::test_deepspeed
