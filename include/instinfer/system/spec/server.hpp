#pragma once
// A server: GPUs, host, links and number of drives. The drive itself is part of a system's design.

#include <string>

#include "instinfer/system/spec/gpu_spec.hpp"
#include "instinfer/system/spec/host_spec.hpp"
#include "instinfer/system/spec/links.hpp"

namespace instinfer::system {

// Where the weights are between steps. host: each step streams them to the GPU layer by layer. The
// paper's bars show this: at batch 64, FlexGen spends 1.1 % of a step of 80 s outside of KV access,
// the time of OPT-13B's 25.7 GB at 32 GB/s. And FlexGen's best batches are those whose KV fits in
// the host memory that weights leave free.
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
