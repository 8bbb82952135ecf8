// FlexGen: where its page cache ends, and its verdict.

#include <doctest/doctest.h>

#include "instinfer/system/flexgen.hpp"
#include "instinfer/system/run.hpp"
#include "instinfer/system/spec/models.hpp"
#include "tests/support/shared_timelines.hpp"

namespace instinfer::test_flexgen {

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

TEST_CASE("the page cache holds what weights and buffers leave, or nothing") {
  server small = paper_server();
  const double kv = 6 * 640 * tiny().kv_bytes_per_token();
  const double others = tiny().weight_bytes() + 4 * 2.0 * 1024 * 1024 * 1024;
  small.host.memory_bytes = others + kv;
  const flexgen_system<> at_limit(tiny(), small, job);
  CHECK(at_limit.in_page_cache(640));
  CHECK(!at_limit.in_page_cache(641));
  CHECK(at_limit.step(640).bytes.drive_link == 0);
  CHECK(at_limit.step(641).bytes.drive_link > 0.9 * kv);
  CHECK(at_limit.step(641).time.total_s() > at_limit.step(640).time.total_s());
  // GDS goes past it.
  const flexgen_gds_system<> past(tiny(), paper_server(), job);
  CHECK(!past.in_page_cache(1));
  CHECK(past.step(640).time.kv_link_s == 0);
  CHECK(at_limit.memory().fits());  // slower, but it runs
}

TEST_CASE("FlexGen's prompts overflow the GPU at batch 128, by a verdict") {
  const auto memory = [](std::int64_t batch) {
    return flexgen_system<>(opt_13b, paper_server(), paper_opt_workload(batch)).memory();
  };
  CHECK(memory(64).fits());
  const memory_use over = memory(128);
  CHECK(over.overflows() == system::tier::gpu);
  CHECK(over.verdict() == "out of GPU memory: needs 45.6 GB of 38.4 GB");
  // By hand: 2 layers of weights; a token's 5 vectors of 5120; 3 x 40 heads x 1024^2 logits; KV of
  // two layers.
  const double by_hand = 2 * opt_13b.layer_weight_bytes() +
                         128.0 * 2 * (1024 * 5 * 5120.0 + 3 * 40 * 1024.0 * 1024) +
                         2 * 128.0 * 1024 * 20'480;
  CHECK(over.gpu.needed_bytes == doctest::Approx(by_hand));
  // One prompt after the other, without matrices of scores: 27 times less beside the weights.
  const memory_use tiled = flexgen_system<>(opt_13b, paper_server(), paper_opt_workload(128), {},
                                            flexgen::drive, prompts::one_by_one)
                               .memory();
  CHECK(tiled.gpu.needed_bytes == doctest::Approx(2 * opt_13b.layer_weight_bytes() +
                                                  2 * 1024 * 5 * 5120.0 + 2 * 1024.0 * 20'480));
  CHECK(tiled.fits());
  // A run that does not fit has no throughput, but says what it would take.
  const report none = run(flexgen_system<>(opt_13b, paper_server(), paper_opt_workload(128)), 2);
  CHECK(none.tokens_per_s() == 0);
  CHECK(none.total_s() > 0);
}

}  // namespace instinfer::test_flexgen
