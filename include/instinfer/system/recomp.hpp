#pragma once
// Recomp: the KV cache only in GPU memory. What does not fit is dropped and recomputed (vLLM's
// preemption by recomputation).

#include <cmath>

#include "instinfer/system/concepts.hpp"
#include "instinfer/system/gpu_side.hpp"

namespace instinfer::system {

// Weights stay on the GPU. As many sequences as fit run at full GPU speed. The other sequences take
// turns, and each of their tokens costs host_software::recomputed_tokens tokens of forward pass.
class recomp_system {
 public:
  static constexpr std::string_view name = "Recomp";
  static constexpr double usable_gpu_share = 0.9;  // vLLM's default gpu_memory_utilization

  recomp_system(const model_spec& model, server on, const workload& job)
      : gpu_{model, (on.weights = weights_at::gpu, on), job} {}

  const workload& job() const { return gpu_.job(); }

  // Number of sequences whose cache fits in the GPU.
  double resident(double context) const {
    const double fit = std::floor(kv_room_bytes() / (context * gpu_.model().kv_bytes_per_token()));
    return std::clamp(fit, 0.0, static_cast<double>(job().batch));
  }

  decode_step step(double context) const {
    const model_spec& model = gpu_.model();
    const double batch = static_cast<double>(job().batch);
    const double layers = model.shape.layers;
    const double at_once = std::max(1.0, resident(context));
    const double again =
        (batch - std::min(batch, at_once)) * gpu_.on().host.software.recomputed_tokens;
    decode_step s;
    // Groups of equal size that fit run one after the other.
    const double groups = std::ceil(batch / at_once);
    s.time.compute_s = groups * gpu_.time().model_s(model, std::ceil(batch / groups)) +
                       layers * gpu_.time().decode_attention_s(model, batch, context);
    if (again > 0) {
      s.time.compute_s += layers * gpu_.time().layer_s(model, again) +
                          again * model.attention_flops_per_token(context) / 2 /
                              gpu_.time().arithmetic_flops_per_s();
    }
    s.bytes.kv_wanted = gpu_.kv_bytes(context);
    s.bytes.kv_written = gpu_.kv_bytes(1);
    return s;
  }

  prefill_time prefill() const { return gpu_.prefill(0, 0); }

  memory_use memory() const {
    const double one =
        static_cast<double>(job().context_tokens()) * gpu_.model().kv_bytes_per_token();
    return {.gpu = {gpu_.weight_bytes() + gpu_.decode_activation_bytes() + one,
                    usable_gpu_share * gpu_.on().gpu_memory_bytes()},
            .host = {0, gpu_.on().host.memory_bytes},
            .drive = {},
            .drive_dram = {}};
  }

  const gpu_side& gpu() const { return gpu_; }

 private:
  double kv_room_bytes() const {
    return std::max(0.0, usable_gpu_share * gpu_.on().gpu_memory_bytes() - gpu_.weight_bytes() -
                             gpu_.decode_activation_bytes());
  }

  gpu_side gpu_;
};

}  // namespace instinfer::system
