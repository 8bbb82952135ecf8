#pragma once
// The load on a server: sequences at a time, tokens in and tokens out.

#include <cstdint>
#include <string>

#include "instinfer/core/errors.hpp"

namespace instinfer::system {

struct workload {
  std::int64_t batch = 1;
  std::int64_t input_tokens = 1024;
  std::int64_t output_tokens = 1024;

  constexpr std::int64_t context_tokens() const { return input_tokens + output_tokens; }
  constexpr double tokens_out() const {
    return static_cast<double>(batch) * static_cast<double>(output_tokens);
  }

  void validate() const {
    require(batch > 0 && input_tokens > 0 && output_tokens > 0, [&] {
      return "workload: batch, input_tokens and output_tokens must be positive, got " +
             std::to_string(batch) + ", " + std::to_string(input_tokens) + ", " +
             std::to_string(output_tokens);
    });
  }
};

// InstInfer §VI-A.
constexpr workload paper_opt_workload(std::int64_t batch) { return {batch, 1024, 1024}; }
constexpr workload paper_llama_workload(std::int64_t batch) { return {batch, 2048, 2048}; }

}  // namespace instinfer::system
