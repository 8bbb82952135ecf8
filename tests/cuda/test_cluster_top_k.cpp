// The k largest keys of a cluster of CTAs, on an emulated GPU.

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "instinfer/core/index_set.hpp"
#include "instinfer/core/top_k.hpp"
#include "instinfer/cuda/kernels/cluster_top_k.hpp"
#include "instinfer/cuda/kernels/select_kernel.hpp"
#include "tests/support/emulated_gpu.hpp"

namespace instinfer::test_cluster_top_k {

TEST_CASE("the k largest keys of a cluster are core's") {
  using top_k = cuda::cluster_top_k<test::emulated_lane, cuda::select_threads>;
  std::mt19937 random(5);
  for (int round = 0; round < 24; ++round) {
    CAPTURE(round);
    const std::uint32_t ctas = 1u << (round % 4);
    std::vector<std::vector<std::uint32_t>> keys(ctas);
    std::vector<float> all;  // numbers that sort as the keys do; for key 0, a hidden one, -infinity
    std::uint32_t live = 0;
    for (auto& of_cta : keys) {
      of_cta.resize(random() % 700);
      for (std::uint32_t& key : of_cta) {
        // Many ties in some rounds, in some all keys within a digit, in some all 32 bits.
        const auto x =
            static_cast<float>(round % 3 == 0 ? random() % 5 : random() >> (round % 3 * 4));
        const bool hidden = random() % 8 == 0;
        key = hidden ? 0 : order_key(x);
        all.push_back(hidden ? -INFINITY : x);
        live += hidden ? 0 : 1;
      }
    }
    REQUIRE(live > 0);
    const std::uint32_t k = 1 + static_cast<std::uint32_t>(random()) % live;
    index_set expected;
    std::vector<order_key_t<float>> scratch;
    instinfer::top_k<float>(all, k, expected, scratch);
    std::vector<std::uint32_t> listed(k, 0xFFFF'FFFFu);
    test::run_on_emulated_gpu(
        ctas, cuda::select_threads, top_k::words * 4, static_cast<unsigned>(round),
        [&](test::emulated_lane& lane) {
          const auto& mine = keys[lane.cluster_rank()];
          std::uint32_t before = 0;
          for (std::uint32_t r = 0; r < lane.cluster_rank(); ++r) {
            before += static_cast<std::uint32_t>(keys[r].size());
          }
          top_k best(lane, reinterpret_cast<std::uint32_t*>(lane.shared()), mine.data(),
                     static_cast<std::uint32_t>(mine.size()));
          best.prepare();
          lane.sync_cluster();
          best.list(k, [&](std::uint32_t place, std::uint32_t at) { listed[place] = before + at; });
        },
        ctas);
    std::vector<std::uint32_t> wanted;
    expected.view().for_each([&](std::uint32_t i) { wanted.push_back(i); });
    CHECK(listed == wanted);
  }
}

}  // namespace instinfer::test_cluster_top_k
