// The attention kernel on a device against fp64: the cases of the emulated one, longer, and all
// head sizes.
#define EIGEN_NO_CUDA  // the oracle runs on the host
#include "instinfer/cuda/launch/attend.cuh"
#include "instinfer/cuda/launch/bulk_lane.cuh"
#include "instinfer/cuda/launch/merge.cuh"
#include "tests/support/attend_case.hpp"

using namespace instinfer;
using cuda::check;

namespace {

bool have_device() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) {
    return true;
  }
  MESSAGE("no device: not run");
  return false;
}

// Managed memory: host and device see the same array.
template <class T>
struct managed {
  using value_type = T;
  managed() = default;
  template <class U>
  managed(const managed<U>&) {}
  T* allocate(std::size_t n) {
    void* p = nullptr;
    check(cudaMallocManaged(&p, n * sizeof(T)), "cudaMallocManaged");
    return static_cast<T*>(p);
  }
  void deallocate(T* p, std::size_t) { (void)cudaFree(p); }
  bool operator==(const managed&) const = default;
};

template <class Copies = cuda::lane_copies>
struct on_device {
  template <class T>
  using vector = std::vector<T, managed<T>>;

  template <class E, std::uint32_t Dim, class Code>
  static void run(const cuda::attend_arguments<E, float, Code>& a, const cuda::partition_rule& rule,
                  const cuda::attend_workspace& work, std::uint32_t blocks, unsigned) {
    using attend = cuda::attend<E, float, Dim, Code, Copies>;
    constexpr std::uint32_t shared = attend::shape::shared_bytes;
    constexpr auto kernel = cuda::attend_on_device<typename attend::kernel>;
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared),
          "cudaFuncSetAttribute");
    kernel<<<blocks, cuda::cta_threads, shared>>>(a, rule, work);
    check(cudaGetLastError(), "attend_on_device<<<>>>");
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }
};

template <class E, std::uint32_t Dim, class Code = E>
void check_case(unsigned seed, const test::attend_case& c) {
  test::check_attend<on_device<>, E, Dim, Code>(seed, c);
}

}  // namespace

TEST_CASE("head sizes, groups, pages") {
  if (!have_device()) {
    return;
  }
  for (const std::uint32_t group : {1u, 3u, 8u, 16u}) {
    for (const std::uint32_t page : {1u, 16u, 100u, 256u}) {
      const test::attend_case c{.tokens = {1000, 0, 1, 300},
                                .kv_heads = 2,
                                .group = group,
                                .page_tokens = page,
                                .blocks = 13,
                                .token_major = group == 3};
      check_case<fp16, 128>(group + page, c);
      check_case<bf16, 256>(group + page, c);
      check_case<fp16, 64, fp8>(group + page, c);
      check_case<fp16, 128, std::int8_t>(group + page, c);
    }
  }
}

TEST_CASE("skewed batches, lists, masks, fixed splits") {
  if (!have_device()) {
    return;
  }
  std::vector<std::uint32_t> skewed(40, 100);
  skewed[7] = 20'000;
  for (const std::uint32_t blocks : {1u, 132u, 264u}) {
    check_case<fp16, 128>(1, {.tokens = skewed, .group = 4, .blocks = blocks});
  }
  check_case<fp16, 128>(2, {.tokens = {3000, 70},
                            .kv_heads = 2,
                            .group = 4,
                            .blocks = 50,
                            .listed_share = 0.1,
                            .blend = true});
  check_case<fp16, 128>(3, {.tokens = {3000, 70},
                            .first = {100, 3},
                            .group = 5,
                            .blocks = 50,
                            .rule = {.soft_cap = 5.0f, .window = 500, .sinks = 4}});
  check_case<fp16, 128>(4, {.tokens = {3000, 70, 0},
                            .group = 4,
                            .blocks = 50,
                            .partition = {.slice_tokens = 256, .fixed = true}});
}

TEST_CASE("bulk copies") {
  if (!have_device() || cuda::current_device().capability < 90) {
    return;
  }
  for (const std::uint32_t tokens : {1u, 63u, 300u, 1000u}) {
    test::check_attend<on_device<cuda::bulk_copies>, fp16, 128>(
        tokens, {.tokens = {tokens, 0, 20'000}, .kv_heads = 2, .group = 4, .blocks = 50});
  }
}

TEST_CASE("a merge refuses what it is not given, device or not") {
  const cuda::merge_arguments<fp16, float> nothing;
  CHECK_THROWS_WITH_AS(cuda::merge(nothing), doctest::Contains("merge: parts"), bad_argument);
}
