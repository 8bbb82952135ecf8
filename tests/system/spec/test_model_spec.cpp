// Models, servers and workloads against published numbers and hand-computed cases.

#include <doctest/doctest.h>

#include <string>
#include <type_traits>
#include <utility>

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
    CHECK(model->q_width() == model->hidden);
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

// A copy of a valid part with one field changed.
template <class Part>
void check_refused(const Part& valid, auto Part::* field, double value) {
  Part part = valid;
  part.*field = static_cast<std::remove_reference_t<decltype(part.*field)>>(value);
  CAPTURE(value);
  CHECK_THROWS_AS(part.validate(), bad_argument);
}

TEST_CASE("each size must be positive, each cost may be zero") {
  for (const auto field : {&model_spec::hidden, &model_spec::ffn, &model_spec::vocabulary}) {
    check_refused(opt_13b, field, 0);
  }
  check_refused(opt_13b, &model_spec::head_dim, 0);
  check_refused(opt_13b, &model_spec::element_bytes, 0);
  check_refused(opt_13b, &model_spec::kv_element_bytes, 0);
  check_refused(opt_13b, &model_spec::positions, -1);
  for (const auto field :
       {&gpu_spec::memory_bytes, &gpu_spec::memory_bytes_per_s, &gpu_spec::flops_per_s}) {
    check_refused(t4, field, 0);
  }
  check_refused(t4, &gpu_spec::watts, -1);
  check_refused(server{}, &server::gpus, 0);
  check_refused(server{}, &server::drives, 0);
  for (const transfer::link_spec bad : {transfer::link_spec{.bytes_per_s = 0, .latency_ns = 0},
                                        {.bytes_per_s = 1, .latency_ns = -1}}) {
    server on;
    on.gpu_link = bad;
    CHECK_THROWS_WITH_AS(on.validate(), doctest::Contains("gpu_link"), bad_argument);
  }
  for (const auto field :
       {&host_spec::memory_bytes, &host_spec::request_bytes, &host_spec::swap_page_bytes}) {
    check_refused(xeon_5320, field, 0);
  }
  check_refused(xeon_5320, &host_spec::copy_threads, 0);
  check_refused(xeon_5320, &host_spec::copy_buffer_bytes, -1);
  check_refused(xeon_5320, &host_spec::nvme_command_ns, -1);
  host_spec free = xeon_5320;
  free.copy_buffer_bytes = free.nvme_command_ns = 0;
  free.software = {.cached_request_ns = 0, .swapped_page_ns = 0, .recomputed_tokens = 0};
  CHECK_NOTHROW(free.validate());
  for (const auto field : {&host_software::cached_request_ns, &host_software::swapped_page_ns,
                           &host_software::recomputed_tokens}) {
    host_spec host = xeon_5320;
    host.software.*field = -1;
    CHECK_THROWS_WITH_AS(host.validate(), doctest::Contains("software costs"), bad_argument);
  }
}

TEST_CASE("a server has one GPU and one drive unless told otherwise") {
  CHECK(server{}.gpus == 1);
  CHECK(server{}.drives == 1);
  CHECK(paper_server().drives == 1);
  CHECK(paper_server(3).drives == 3);
  CHECK(paper_server(3, 2).gpu_memory_bytes() == 2 * 48e9);
}

}  // namespace instinfer::test_model_spec
