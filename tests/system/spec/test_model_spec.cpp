// Models, GPUs, links and workloads against published numbers and hand-computed cases.

#include <doctest/doctest.h>

#include <utility>

#include "instinfer/system/gpu_time.hpp"
#include "instinfer/system/spec/links.hpp"
#include "instinfer/system/spec/models.hpp"
#include "instinfer/system/spec/server.hpp"
#include "instinfer/system/spec/workload.hpp"

namespace instinfer::test_model_spec {

using namespace system;

TEST_CASE("parameters computed from shapes are the published ones") {
  // Exact: the sums of the tensors in the published checkpoints.
  CHECK(opt_6_7b.parameters() == 6'658'473'984);
  CHECK(opt_13b.parameters() == 12'853'473'280);
  CHECK(llama2_7b.parameters() == 6'738'415'616);
  CHECK(llama2_13b.parameters() == 13'015'864'320);
  CHECK(llama2_70b.parameters() == 68'976'648'192);
  CHECK(llama3_8b.parameters() == 8'030'261'248);
  CHECK(llama3_70b.parameters() == 70'553'706'496);
  CHECK(qwen2_5_32b.parameters() == 32'763'876'352);
  // By name.
  for (const auto& [model, billions] :
       {std::pair{&opt_30b, 30.0}, {&opt_66b, 66.0}, {&opt_175b, 175.0}}) {
    CHECK(static_cast<double>(model->parameters()) / 1e9 ==
          doctest::Approx(billions).epsilon(0.01));
  }
}

TEST_CASE("KV bytes, weights and FLOPs by hand") {
  // InstInfer §I: 2 x 40 layers x 40 heads x 128 x 2 B.
  CHECK(opt_13b.kv_bytes_per_token() == 819'200);
  CHECK(opt_13b.kv_bytes_per_token_layer() == 20'480);
  CHECK(opt_30b.kv_bytes_per_token() == 2.0 * 48 * 56 * 128 * 2);
  CHECK(llama3_8b.kv_bytes_per_token() == 2.0 * 32 * 8 * 128 * 2);  // grouped: 8 KV heads
  CHECK(opt_13b.weight_bytes() == 2.0 * 12'853'473'280);
  // Batch 32 x 4K tokens: "about 100 GB = 4.2 x the weights".
  const double kv = 32 * 4096 * opt_13b.kv_bytes_per_token();
  CHECK(kv / opt_13b.weight_bytes() == doctest::Approx(4.2).epsilon(0.01));
  // A layer of OPT-13B: 12 h^2; all layers and the head over the vocabulary.
  CHECK(opt_13b.layer_matrix_elements() == 12 * 5120LL * 5120);
  CHECK(opt_13b.gemm_flops_per_token() == 2.0 * (40 * 12.0 * 5120 * 5120 + 50'272.0 * 5120));
  // q.K^T and s.V: 2 x 2 x 5120 a token and layer.
  CHECK(opt_13b.attention_flops_per_token(1000) == 40 * 4.0 * 5120 * 1000);
  // Llama-3-8B: Q and O 4096 x 4096, K and V 4096 x 1024, three matrices 4096 x 14336.
  CHECK(llama3_8b.layer_matrix_elements() ==
        2 * 4096LL * 4096 + 2 * 4096LL * 1024 + 3 * 4096LL * 14'336);
}

TEST_CASE("every named model is valid and has whole heads") {
  for (const model_spec* model : all_models) {
    CAPTURE(std::string(model->name));
    CHECK_NOTHROW(model->validate());
    CHECK(model->q_width() % model->shape.q_heads == 0);
    CHECK(model->head_dim % 16 == 0);
  }
}

TEST_CASE("bad specs say what is wrong") {
  model_spec model = opt_13b;
  model.ffn = 0;
  CHECK_THROWS_WITH_AS(model.validate(), doctest::Contains("OPT-13B: hidden, head_dim, ffn"),
                       bad_argument);
  CHECK_THROWS_WITH_AS((workload{0, 1, 1}.validate()),
                       doctest::Contains("must be positive, got 0, 1, 1"), bad_argument);
  server two = paper_server(0);
  CHECK_THROWS_WITH_AS(two.validate(), doctest::Contains("gpus and drives"), bad_argument);
  gpu_spec gpu = t4;
  gpu.flops_per_s = 0;
  CHECK_THROWS_WITH_AS(gpu.validate(), doctest::Contains("gpu_spec T4"), bad_argument);
  host_spec host = xeon_5320;
  host.software.pageable_bytes_per_s = 0;
  CHECK_THROWS_WITH_AS(host.validate(), doctest::Contains("pageable_bytes_per_s"), bad_argument);
  CHECK_THROWS_WITH_AS(pcie(2, 16), doctest::Contains("got generation 2 x16"), bad_argument);
}

TEST_CASE("links by generation and width") {
  CHECK(pcie(3, 4).bytes_per_s == 4e9);
  CHECK(pcie(4, 16).bytes_per_s == 32e9);  // the paper's figure
  CHECK(pcie(5, 4).bytes_per_s == 16e9);
}

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

}  // namespace instinfer::test_model_spec
