#pragma once
// A machine: GPUs, host, links, how many drives. The drive itself comes with a system's design.

#include <string>

#include "instinfer/system/spec/gpu_spec.hpp"
#include "instinfer/system/spec/host_spec.hpp"
#include "instinfer/system/spec/links.hpp"

namespace instinfer::system {

// Where the weights rest between steps. host: streamed to the GPU layer by layer in each step. The paper's bars say so:
// FlexGen spends 1.1 % of a step of 80 s at batch 64 outside of KV access, which is OPT-13B's 25.7 GB at 32 GB/s, and the batches
// at which FlexGen is best are those whose KV fits the host memory that weights leave.
enum class weights_at { host, gpu };

struct server {
  gpu_spec gpu = rtx_a6000;
  int gpus = 1;
  host_spec host = xeon_5320;
  transfer::link_spec gpu_link = pcie(4, 16);  // of each GPU
  int drives = 1;
  weights_at weights = weights_at::host;

  double gpu_memory_bytes() const { return gpus * gpu.memory_bytes; }

  void validate() const {
    gpu.validate();
    host.validate();
    require(gpus > 0 && drives > 0, [&] {
      return "server: gpus and drives must be positive, got " + std::to_string(gpus) + " and " +
             std::to_string(drives);
    });
    require(gpu_link.bytes_per_s > 0 && gpu_link.latency_ns >= 0,
            [] { return std::string("server: gpu_link needs a positive bytes_per_s"); });
  }
};

// InstInfer §VI-A; OPT-30B runs on two of the GPUs.
constexpr server paper_server(int drives = 1, int gpus = 1) {
  return {.gpus = gpus, .drives = drives};
}

}  // namespace instinfer::system
