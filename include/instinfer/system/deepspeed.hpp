#pragma once
// DeepSpeed (ZeRO-Inference): weights and KV cache in host memory; the kernel swaps what overflows
// (InstInfer §III).

#include "instinfer/system/concepts.hpp"
#include "instinfer/system/gpu_side.hpp"

namespace instinfer::system {

// In each step, the KV of each layer crosses the GPU's link. Host memory holds the cache twice,
// because a tensor that grows by a token is allocated again (assumed: old and new tensor at the
// same time, pinned blocks in powers of two). The paper's batch of 32 then overflows 96 GB, and a
// batch of 16 does not. Each step reads the whole cache in order, so least-recently-used
// replacement swaps all of it, not only the overflow.
class deepspeed_system {
 public:
  static constexpr std::string_view name = "DeepSpeed";
  static constexpr double kv_copies = 2;

  deepspeed_system(const model_spec& model, const server& on, const workload& job)
      : gpu_{model, on, job} {}

  const workload& job() const { return gpu_.job(); }

  bool swaps(double context) const { return host_bytes(context) > gpu_.on().host.memory_bytes; }

  decode_step step(double context) const {
    const server& on = gpu_.on();
    const double layers = gpu_.model().shape.layers;
    const double kv = gpu_.kv_bytes(context);
    decode_step s;
    s.time = gpu_.step();
    s.time.compute_s += layers * gpu_.time().decode_attention_s(
                                     gpu_.model(), static_cast<double>(job().batch), context);
    s.time.kv_link_s = kv / rate() + layers * on.gpu_link.latency_ns * 1e-9;
    const double swapped = swaps(context) ? kv : 0.0;
    s.time.kv_software_s =
        swapped / on.host.swap_page_bytes * on.host.software.swapped_page_ns * 1e-9;
    const double written = gpu_.kv_bytes(1);
    s.time.kv_write_s = written / rate();
    s.bytes = {.weights = gpu_.streamed_bytes(),
               .gpu_link_kv = kv,
               .drive_link = 2 * swapped,  // swapped in and out
               .flash_read = swapped,
               .kv_wanted = kv,
               .kv_written = written};
    return s;
  }

  prefill_time prefill() const {
    return gpu_.prefill(gpu_.kv_bytes(static_cast<double>(job().input_tokens)), rate());
  }

  memory_use memory() const {
    const server& on = gpu_.on();
    const double layer_kv =
        gpu_.kv_bytes(static_cast<double>(job().context_tokens())) / gpu_.model().shape.layers;
    return {.gpu = {gpu_.weight_bytes() + gpu_.decode_activation_bytes() + 2 * layer_kv,
                    on.gpu_memory_bytes()},
            .host = {host_bytes(static_cast<double>(job().context_tokens())), on.host.memory_bytes},
            .drive = {},
            .drive_dram = {},
            .host_may_overflow = true};
  }

  const gpu_side& gpu() const { return gpu_; }

 private:
  double host_bytes(double context) const {
    return kv_copies * gpu_.kv_bytes(context) +
           (gpu_.on().weights == weights_at::host ? gpu_.model().weight_bytes() : 0.0);
  }
  double rate() const {
    return std::min(gpu_.on().host.software.pageable_bytes_per_s, gpu_.on().gpu_link.bytes_per_s);
  }

  gpu_side gpu_;
};

}  // namespace instinfer::system
