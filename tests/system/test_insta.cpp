#include <doctest/doctest.h>

#include "instinfer/system/gpu_time.hpp"
#include "instinfer/system/insta.hpp"
#include "instinfer/system/spec/models.hpp"
#include "tests/support/shared_timelines.hpp"

namespace instinfer::test_insta {

using namespace system;

namespace {

// A model of OPT's kind that is quick to simulate: 8 heads, 4 layers.
constexpr model_spec tiny() {
  model_spec model = opt_6_7b;
  model.name = "tiny";
  model.shape = {.layers = 4, .q_heads = 8, .kv_heads = 8};
  model.hidden = 1024;
  model.ffn = 4096;
  return model;
}
constexpr workload job{.batch = 6, .input_tokens = 512, .output_tokens = 256};

}  // namespace

TEST_CASE("infinitely fast drives leave the GPU's own time") {
  flash::drive_spec drive = flash::instcsd;
  drive.timing.read_ps = 1;
  drive.timing.program_ps = 1;
  drive.timing.bus_bytes_per_s = 1'000'000'000'000'000;
  drive.timing.read_command_ps = drive.timing.read_address_ps = drive.timing.read_next_plane_ps = 0;
  drive.timing.read_turnaround_ps = drive.timing.program_command_ps =
      drive.timing.program_next_plane_ps = 0;
  drive.link_bytes_per_s = 1'000'000'000'000'000;
  constexpr std::int64_t fast = 1'000'000'000'000'000;
  drive.dram_bytes_per_s = fast;
  drive.units = {.filter_bytes_per_s = fast,
                 .attention_kernels = 1,
                 .gemv_flops_per_s = fast,
                 .softmax_units = 1,
                 .softmax_flops_per_s = fast,
                 .top_k_elements_per_s = fast};
  server on = paper_server();
  on.host.nvme_command_ns = 0;
  on.gpu_link = {.bytes_per_s = 1e18, .latency_ns = 0};
  const insta_sparf_system<> s(tiny(), on, job, {}, drive);
  const double gpu_s = gpu_time(on.gpu).model_s(tiny(), 6);
  CHECK(s.step(700).time.total_s() == doctest::Approx(gpu_s).epsilon(0.01));
}

TEST_CASE("new K and V are written at the rate of all drives together") {
  for (const int drives : {1, 4}) {
    const insta_sparf_system<> s(tiny(), paper_server(drives), job);
    const kv_access<insta_sparf> kv(tiny(), job, drives);
    // K twice and V: 6 sequences, 4 layers, 8 heads of 128 dims, fp16.
    CHECK(s.step(700).time.kv_write_s ==
          doctest::Approx(6 * 4 * 3 * 8 * 128 * 2 / (drives * kv.write_bytes_per_s())));
  }
}

TEST_CASE("drives that share tokens get the same q, and give back parts with their log-sum-exp") {
  const server on = paper_server(3);
  const drive_split split = split_of(cluster::by_tokens{}, 3, tiny().shape, job.batch);
  const insta_system<> s(tiny(), on, job, split);
  // 8 heads of 128 dims, fp16: q to 3 drives, k and v to one; 3 outputs with 8 sums in fp32.
  const double down = 6 * 2 * (3 * 1024 + 2 * 1024);
  const double up = 6 * 3 * (2 * 1024 + 4 * 8);
  CHECK(s.step(700).bytes.drive_link == 4 * (down + up));
  CHECK(s.step(700).time.command_s == doctest::Approx(4 * 6 * 3 * on.host.nvme_command_ns * 1e-9));
  CHECK_THROWS_WITH_AS(insta_system<>(tiny(), paper_server(2), job, split),
                       "insta_system: the split is over 3 drives, the server has 2", bad_argument);
}

}  // namespace instinfer::test_insta
