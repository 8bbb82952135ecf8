#include <doctest/doctest.h>

#include "instinfer/system/insta.hpp"
#include "instinfer/system/memory.hpp"
#include "instinfer/system/spec/models.hpp"

namespace instinfer::test_memory {

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

TEST_CASE("verdicts name the first tier that overflows") {
  memory_use use{.gpu = {1, 2}, .host = {3, 2}, .drive = {5e9, 4e9}, .drive_dram = {9, 1}};
  CHECK(use.overflows() == system::tier::host);
  use.host_may_overflow = true;
  CHECK(use.verdict() == "out of drive: needs 5.0 GB of 4.0 GB");
  use.drive = {};
  CHECK(use.fits());  // the drive's DRAM is told, not judged
  // A drive that is too small.
  server one = paper_server();
  const workload endless{.batch = 100'000, .input_tokens = 64, .output_tokens = 64 * 1024};
  CHECK(insta_system<>(tiny(), one, endless).memory().overflows() == system::tier::drive);
}

}  // namespace instinfer::test_memory
