#pragma once
// The host: its memory and the costs of its software. Four of the constants are calibrated.

#include <string>
#include <string_view>

#include "instinfer/core/errors.hpp"
#include "instinfer/transfer/concepts.hpp"

namespace instinfer::system {

// Each constant is calibrated on one number of Fig. 14: `./dev bench paper --calibrate` solves for
// all four, and tests/bench/test_reproduction.cpp fails if one differs from its solution.
struct host_software {
  // A request of 128 KiB from the page cache to a pinned buffer: page faults and copies. Calibrated
  // on InstA's best over FlexGen's best, 11.1 / 2.08 in Fig. 14. A route has no page cache: its
  // file_system_ns (transfer/concepts.hpp) is the whole software cost of a request to the drive,
  // calibrated on batch 64.
  double cached_request_ns = 88'100;
  // Rate of KV from host memory to the GPU, as DeepSpeed moves it. Calibrated on InstA's best over
  // DeepSpeed's best, 1.046.
  double pageable_bytes_per_s = 9.92e9;
  // One page of 4 KiB swapped in, and the page swapped out for it. Calibrated on DeepSpeed's batch
  // 16 over its batch 32, 32.6.
  double swapped_page_ns = 24'400;
  // vLLM's recomputation: tokens that pass through the model again for every token that a sequence
  // without its cache generates. Calibrated on InstA-SparF over Recomp at batch 256, 1.713.
  double recomputed_tokens = 607;
};

struct host_spec {
  std::string_view name;
  double memory_bytes = 0;
  // FlexGen copies files with four threads, each with a pinned buffer of 2 GiB (its source,
  // pytorch_backend.py). The page cache cannot use these buffers.
  int copy_threads = 4;
  double copy_buffer_bytes = 2.0 * 1024 * 1024 * 1024;
  // The size of a block request and the cost of an NVMe command are those of a route.
  double request_bytes = transfer::route_spec{}.request_bytes;
  double swap_page_bytes = 4096;
  double nvme_command_ns = transfer::route_spec{}.nvme_command_ns;
  host_software software = {};

  void validate() const {
    require(
        memory_bytes > 0 && copy_threads > 0 && copy_buffer_bytes >= 0 && request_bytes > 0 &&
            swap_page_bytes > 0,
        [&] {
          return "host_spec " + std::string(name) +
                 ": memory_bytes, copy_threads, request_bytes and swap_page_bytes must be positive";
        });
    require(software.pageable_bytes_per_s > 0 && software.cached_request_ns >= 0 &&
                software.swapped_page_ns >= 0 && software.recomputed_tokens >= 0 &&
                nvme_command_ns >= 0,
            [&] {
              return "host_spec " + std::string(name) +
                     ": software costs must not be negative, pageable_bytes_per_s must be positive";
            });
  }
};

// InstInfer §VI-A: Xeon 5320, 96 GB DDR4.
inline constexpr host_spec xeon_5320{.name = "Xeon 5320, 96 GB", .memory_bytes = 96e9};

}  // namespace instinfer::system
