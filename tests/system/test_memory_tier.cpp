// The best case of a memory beside the GPU: by hand, never slower with more of anything, and at the
// GPU's own speed in the limit.

#include <doctest/doctest.h>

#include "instinfer/system/memory_tier.hpp"
#include "instinfer/system/run.hpp"
#include "instinfer/system/spec/models.hpp"

namespace instinfer::test_memory_tier {

using namespace system;

namespace {

static_assert(System<tier_system>);

server host_with_h100() {
  return {.gpu = h100_sxm, .gpu_link = pcie(5, 16), .weights = weights_at::gpu};
}
constexpr workload job{.batch = 16, .input_tokens = 65'536, .output_tokens = 1'024};

double step_s(const server& on, const memory_tier& tier, double share = 1) {
  return tier_system(llama3_8b, on, job, tier, share).step(65'536).time.total_s();
}

}  // namespace

TEST_CASE("KV crosses the slower of link and tier, and compute hides behind it") {
  const server on = host_with_h100();
  const memory_tier slow{"slow", 1e12, 20e9};
  // 2 x 32 layers x 8 heads x 128 x 2 B = 131,072 B a token; 16 x 65,536 tokens: 137.4 GB.
  const double kv = 16.0 * 65'536 * 131'072;
  const double latency = 32 * 2e-6;
  const double write = 16 * 131'072 / 20e9;
  CHECK(step_s(on, slow) == doctest::Approx(kv / 20e9 + latency + write));
  // A tier of 300 GB/s is slower than itself by PCIe 5 x16.
  const memory_tier fast{"fast", 1e12, 300e9};
  CHECK(step_s(on, fast) == doctest::Approx(kv / 64e9 + latency + 16 * 131'072 / 64e9));
  CHECK(step_s(on, slow, 0.125) == doctest::Approx(kv / 8 / 20e9 + latency + write).epsilon(1e-6));
}

TEST_CASE("more bandwidth is never slower; without limits the GPU's time is left") {
  server on = host_with_h100();
  double before = 1e300;
  for (double rate = 1e9; rate < 1e15; rate *= 4) {
    on.gpu_link.bytes_per_s = rate;
    const double now = step_s(on, {"tier", 1e12, rate});
    CHECK(now <= before);
    before = now;
  }
  const gpu_time time(on.gpu);
  const double gpu_s =
      time.model_s(llama3_8b, 16) + 32 * time.decode_attention_s(llama3_8b, 16, 65'536);
  CHECK(before == doctest::Approx(gpu_s + 32 * 2e-6).epsilon(1e-4));
}

TEST_CASE("a tier that is too small is named, and a larger batch never needs less of it") {
  const memory_tier small{"small", 100e9, 100e9};
  const report run_of_it = run(tier_system(llama3_8b, host_with_h100(), job, small));
  CHECK(!run_of_it.fits());
  CHECK(run_of_it.memory.verdict() == "out of drive: needs 139.6 GB of 100.0 GB");
  double before = 0;
  for (std::int64_t batch = 1; batch < 100; batch *= 3) {
    const tier_system s(llama3_8b, host_with_h100(), {batch, 1'000, 10}, small);
    CHECK(s.memory().drive.needed_bytes > before);
    before = s.memory().drive.needed_bytes;
  }
}

TEST_CASE("bad tiers and shares are refused") {
  CHECK_THROWS_WITH_AS(tier_system(llama3_8b, host_with_h100(), job, {"flat", 1, 0}),
                       doctest::Contains("memory_tier flat"), bad_argument);
  CHECK_THROWS_WITH_AS(tier_system(llama3_8b, host_with_h100(), job, {"t", 1, 1}, 2),
                       doctest::Contains("read_share must be above 0 and at most 1, got 2"),
                       bad_argument);
}

}  // namespace instinfer::test_memory_tier
