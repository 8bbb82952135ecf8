#pragma once
// What a GPU chose for one KV head, as an arithmetic of the attention machine that all paths share
// (attention/machine.hpp). After the kernels, the engine runs the policy on that machine, one KV
// head at a time. So plans, receipts and observations come from the same code as on the other
// paths.

#include <span>
#include <string>

#include "instinfer/attention/machine.hpp"

namespace instinfer::cuda {

// Computes nothing: the kernels wrote the output.
template <class Format>
class device_choices {
 public:
  using format = Format;
  struct scores {
    index_view candidates;
  };

  // dims, tokens: what the head keeps, ascending. They must outlive the attend.
  void set(std::span<const std::uint32_t> dims, std::span<const std::uint32_t> tokens) {
    dims_ = dims;
    tokens_ = tokens;
  }

  void begin(const attention::query_group& /*q*/, const layout::head_pages& /*head*/) {}

  void top_dims(const attention::query_group& /*q*/, attention::group_reduction /*over*/,
                std::uint32_t r, index_set& chosen) {
    take(dims_, r, "dims", chosen);
  }
  void top(const scores& /*s*/, attention::group_reduction /*over*/, std::uint32_t k,
           std::uint32_t /*newest*/, index_set& chosen) {
    take(tokens_, k, "tokens", chosen);
  }

  template <class Pages>
  scores score_dims(const attention::query_group&, index_view /*dims*/, index_view tokens,
                    const access_plan&, const layout::head_pages&, const Pages&) {
    return {tokens};
  }
  template <class Weight>
  scores softmax(const scores& logits, Weight&& /*weight_of*/) {
    return logits;
  }
  template <class Pages>
  void fold(const attention::query_group&, const access_plan&, const layout::head_pages&,
            const Pages&) {}
  template <class Mean>
  void blend_mean(const scores&, index_view, const Mean&) {}

  void finish(std::span<float> /*out*/, std::span<float> /*log_sum_exp*/) {}

 private:
  // Throws bad_argument where the policy asks for a choice that the kernels did not make.
  static void take(std::span<const std::uint32_t> from, std::uint32_t count, const char* what,
                   index_set& chosen) {
    require(count == from.size(), [&] {
      return "cuda::engine: the policy asks for " + std::to_string(count) + " " + what +
             ", the kernels chose " + std::to_string(from.size());
    });
    for (const std::uint32_t i : from) {
      chosen.add(i);
    }
  }

  std::span<const std::uint32_t> dims_;
  std::span<const std::uint32_t> tokens_;
};

// The path of workspace (engine/attend_call.hpp) and head_attend.
struct device_choices_path {
  template <class Format>
  using arithmetic = device_choices<Format>;
};

}  // namespace instinfer::cuda
