#pragma once
// Runs launches of the attention kernel on the emulated GPU, for attend_case.hpp.

#include "tests/support/attend_case.hpp"
#include "tests/support/emulated_gpu.hpp"

namespace instinfer::test {

template <class Copies = cuda::lane_copies>
struct on_emulated_gpu {
  template <class T>
  using vector = std::vector<T>;

  template <class E, std::uint32_t Dim, class Code = E>
  static void run(const cuda::attend_arguments<E, float, Code>& a, const cuda::partition_rule& rule,
                  const cuda::attend_workspace& work, std::uint32_t blocks, unsigned seed) {
    using kernel = cuda::attend_kernel<emulated_lane, E, float, Dim, Code, Copies>;
    run_on_emulated_gpu(blocks, cuda::cta_threads, kernel::shape::shared_bytes, seed,
                        [&](emulated_lane& lane) { kernel(lane, a, rule, work).run(); });
  }
};

}  // namespace instinfer::test
