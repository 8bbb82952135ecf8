#pragma once
// KV in a memory outside the GPU (DRAM, CXL memory, plain SSDs): the upper bound for any software.

#include <string>
#include <string_view>

#include "instinfer/system/concepts.hpp"
#include "instinfer/system/gpu_side.hpp"

namespace instinfer::system {

// All devices of the tier together.
struct memory_tier {
  std::string_view name;
  double bytes = 0;
  double bytes_per_s = 0;  // reads

  void validate() const {
    require(bytes > 0 && bytes_per_s > 0, [&] {
      return "memory_tier " + std::string(name) + ": bytes and bytes_per_s must be positive";
    });
  }
};

// Attention runs on the GPU, so in each step KV crosses its link, at the slower rate of link and
// tier. There is no host software and only the link's latency, and everything overlaps: a step
// takes the longer of computation and link time. Real systems are slower, so drives are compared
// with the best case of each tier.
class tier_system {
 public:
  static constexpr std::string_view name = "KV in a memory tier";

  // read_share: the share of the dense KV bytes that a step reads; 1/8 for sparse attention that
  // wastes nothing.
  tier_system(const model_spec& model, const server& on, const workload& job,
              const memory_tier& tier, double read_share = 1)
      : gpu_{model, on, job}, tier_{(tier.validate(), tier)}, read_share_{read_share} {
    require(read_share > 0 && read_share <= 1, [&] {
      return "tier_system: read_share must be above 0 and at most 1, got " +
             std::to_string(read_share);
    });
  }

  const workload& job() const { return gpu_.job(); }

  double bytes_per_s() const {
    return std::min(tier_.bytes_per_s, gpu_.on().gpus * gpu_.on().gpu_link.bytes_per_s);
  }

  decode_step step(double context) const {
    const double layers = gpu_.model().shape.layers;
    const double kv = gpu_.kv_bytes(context) * read_share_;
    decode_step s;
    s.time = gpu_.step();
    s.time.compute_s +=
        layers * gpu_.time().decode_attention_s(gpu_.model(), static_cast<double>(job().batch),
                                                context * read_share_);
    const double hidden_s = std::max(0.0, s.time.compute_s - gpu_.stream_s());
    s.time.kv_link_s = std::max(0.0, kv / bytes_per_s() - hidden_s) +
                       layers * gpu_.on().gpu_link.latency_ns * 1e-9;
    s.time.kv_write_s = gpu_.kv_bytes(1) / bytes_per_s();
    s.bytes = {.weights = gpu_.streamed_bytes(),
               .gpu_link_kv = kv,
               .kv_wanted = kv,
               .kv_written = gpu_.kv_bytes(1)};
    return s;
  }

  prefill_time prefill() const {
    return gpu_.prefill(gpu_.kv_bytes(static_cast<double>(job().input_tokens)), bytes_per_s());
  }

  // The tier takes the place of the drives.
  memory_use memory() const {
    const double layer_kv = gpu_.kv_bytes(static_cast<double>(job().context_tokens())) *
                            read_share_ / gpu_.model().shape.layers;
    const double one_layer = layer_kv / static_cast<double>(job().batch);
    return {.gpu = {gpu_.weight_bytes() + gpu_.decode_activation_bytes() + 2 * one_layer,
                    gpu_.on().gpu_memory_bytes()},
            .host = {gpu_.on().weights == weights_at::host ? gpu_.model().weight_bytes() : 0.0,
                     gpu_.on().host.memory_bytes},
            .drive = {gpu_.kv_bytes(static_cast<double>(job().context_tokens())), tier_.bytes},
            .drive_dram = {}};
  }

 private:
  gpu_side gpu_;
  memory_tier tier_;
  double read_share_;
};

}  // namespace instinfer::system
