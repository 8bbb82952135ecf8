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
  CHECK(swaps.memory().fits());
  CHECK(!swaps.memory().host.fits());
}

}  // namespace instinfer::test_deepspeed
