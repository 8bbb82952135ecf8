// The CUDA path on a device; what needs none is tested everywhere that nvcc is.
#define EIGEN_NO_CUDA  // the oracle runs on the host
#include <doctest/doctest.h>

#include "instinfer/cuda.cuh"
#include "tests/paths/random_cache.hpp"
#include "tests/paths/transcription.hpp"
#include "tests/paths/watched.hpp"
#if __has_include(<cufile.h>)
#include "instinfer/cuda/engine/direct_file.cuh"
#endif
#include "instinfer/reference/engine.hpp"

using namespace instinfer;
using test::random_cache;

namespace {

using format = kv_format<fp16, 64>;

bool have_device() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) {
    return true;
  }
  MESSAGE("no device: not run");
  return false;
}

// P is rounded before P V, see tests/cuda/test_attend_kernel.cpp; the query is taken as it is
// rounded.
constexpr double tolerance = 8.0 * rounding_error<fp16>;

random_cache<format> rounded(unsigned seed, int tokens, int q_heads) {
  random_cache<format> data(seed, tokens, q_heads, 2);
  for (float& x : data.q) {
    x = to_float(from_float<fp16>(x));
  }
  return data;
}

template <class D>
void check_dense(int tokens, int group, const logit_rule& rule = {}) {
  CAPTURE(tokens);
  CAPTURE(group);
  const random_cache<format> data = rounded(3, tokens, 2 * group);
  cuda::engine<D, format> gpu({.layers = 1, .q_heads = 2 * group, .kv_heads = 2}, {}, {}, rule);
  const sequence seq = gpu.open();
  gpu.append(seq, 0, data.k_tokens(0, tokens / 2), data.v_tokens(0, tokens / 2));
  gpu.append(seq, 0, data.k_tokens(tokens / 2, tokens), data.v_tokens(tokens / 2, tokens));
  std::vector<float> out(data.q.size());
  std::vector<float> lse(static_cast<std::size_t>(2 * group));
  const receipt done = gpu.attend({.seq = seq, .q = data.q, .out = out, .log_sum_exp = lse}, 0);
  for (int h = 0; h < 2 * group; ++h) {
    const auto exact = test::defined_attention(data.Q(h), data.K(h / group, 0, tokens),
                                               data.V(h / group, 0, tokens), rule);
    const double expected_lse = test::defined_log_sum_exp(
        test::defined_logits(data.Q(h), data.K(h / group, 0, tokens), rule));
    const auto got = static_cast<double>(lse[static_cast<std::size_t>(h)]);
    CHECK((tokens == 0 ? got == expected_lse : std::abs(got - expected_lse) <= 1e-4));
    CHECK(test::relative_error(std::span(out).subspan(static_cast<std::size_t>(h * 64), 64),
                               exact) <= tolerance);
  }
  // The receipt is that of the other paths: one plan.
  reference::engine<D, format> other({.layers = 1, .q_heads = 2 * group, .kv_heads = 2}, {}, {},
                                     rule);
  const sequence same = other.open();
  other.append(same, 0, data.k, data.v);
  typename reference::engine<D, format>::scratch work;
  const attend_request request{.seq = same, .q = data.q, .out = out, .log_sum_exp = lse};
  CHECK(other.attend(std::span(&request, 1), 0, work, parallel::serial{}).traffic == done.traffic);
}

// The dims and tokens that the device chose, then fp64 with the same choice.
template <class D>
void check_sparse(int tokens, int group) {
  CAPTURE(tokens);
  CAPTURE(group);
  using policy = typename D::attention_policy;
  const random_cache<format> data = rounded(4, tokens, 2 * group);
  const policy settings{.keep_dims = 0.25, .keep_tokens = 0.25};
  cuda::engine<D, format> gpu({.layers = 1, .q_heads = 2 * group, .kv_heads = 2}, {}, settings);
  const sequence seq = gpu.open();
  gpu.append(seq, 0, data.k, data.v);
  std::vector<float> out(data.q.size());
  test::recorder seen(2);
  const receipt done = gpu.attend(seq, 0, data.q, out, seen);
  std::uint64_t pages = 0;
  for (int h = 0; h < 2; ++h) {
    const test::head_record& head = seen.heads[static_cast<std::size_t>(h)];
    for (const access_plan& plan : head.plans) {
      for (const page_read& read : plan.reads()) {
        pages += read.buffered ? 0 : 1;
      }
    }
    test::sparf_selection mine{
        head.chosen[static_cast<int>(attention::operation::top_dims)].at(0),
        head.chosen[static_cast<int>(attention::operation::top_tokens)].at(0)};
    reference::matrix Q(group, 64);
    for (int g = 0; g < group; ++g) {
      Q.row(g) = data.Q(h * group + g);
    }
    const auto exact = test::transcribed_sparf(
        Q, data.K(h, 0, tokens), data.V(h, 0, tokens), static_cast<int>(mine.dims.size()),
        static_cast<int>(mine.tokens.size()),
        test::defined_kept(std::is_same_v<policy, attention::sparq> ? 0.25 : 0.0,
                           static_cast<int>(mine.tokens.size())),
        std::is_same_v<policy, attention::sparq>, {}, mine);
    for (int g = 0; g < group; ++g) {
      const auto at = static_cast<std::size_t>((h * group + g) * 64);
      CHECK(test::relative_error(std::span(out).subspan(at, 64), exact.out.row(g)) <= tolerance);
    }
  }
  CHECK(done.traffic.pages_read == pages);
}

// A fork that goes back into shared pages, and on; the first sequence stays.
template <class D>
void check_fork() {
  const random_cache<format> data = rounded(6, 300, 4);
  cuda::engine<D, format> gpu({.layers = 1, .q_heads = 4, .kv_heads = 2}, {});
  const sequence seq = gpu.open();
  gpu.append(seq, 0, data.k_tokens(0, 200), data.v_tokens(0, 200));
  const sequence fork = gpu.fork(seq);
  gpu.append(fork, 0, data.k_tokens(200, 260), data.v_tokens(200, 260));
  gpu.truncate(fork, 45);
  gpu.append(fork, 0, data.k_tokens(45, 290), data.v_tokens(45, 290));
  std::vector<float> out(data.q.size());
  for (const auto& [of, tokens] : {std::pair{seq, 200}, {fork, 290}, {seq, 200}}) {
    gpu.attend(of, 0, data.q, out);
    for (int h = 0; h < 4; ++h) {
      const auto exact =
          test::defined_attention(data.Q(h), data.K(h / 2, 0, tokens), data.V(h / 2, 0, tokens));
      CHECK(test::relative_error(std::span(out).subspan(static_cast<std::size_t>(h * 64), 64),
                                 exact) <= tolerance);
    }
  }
}

}  // namespace

TEST_CASE("without a device the engine says so, by type") {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0) {
    return;
  }
  CHECK_THROWS_AS(cuda::current_device(), no_device);
  CHECK_THROWS_AS((cuda::attend<fp16, float, 64>()), no_device);
  CHECK_THROWS_AS((cuda::engine<insta, format>({.layers = 1, .q_heads = 4, .kv_heads = 2}, {})),
                  no_device);
  CHECK_THROWS_WITH_AS(cuda::check(cudaErrorMemoryAllocation, "cudaMalloc"),
                       doctest::Contains("cudaMalloc"), device_error);
  CHECK_THROWS_AS(cuda::check(cudaErrorInsufficientDriver, "cudaGetDevice"), no_device);
}

TEST_CASE(
    "a device that is too old, or has too little shared memory, is refused by what it lacks") {
  const cuda::device_info turing{.ordinal = 1, .capability = 75, .shared_bytes_per_cta = 65536};
  CHECK_THROWS_WITH_AS(turing.require_at_least(cuda::least_capability),
                       doctest::Contains("device 1 is sm_75"), no_device);
  CHECK_THROWS_WITH_AS(turing.require_at_least(75, 65537), doctest::Contains("shared memory"),
                       no_device);
  turing.require_at_least(75, 65536);
}

TEST_CASE("an engine refuses what it cannot do before it asks for a device") {
  CHECK_THROWS_WITH_AS(
      (cuda::engine<insta, format>({.layers = 1, .q_heads = 17, .kv_heads = 1}, {})),
      doctest::Contains("at most 16 query heads"), bad_argument);
  const std::vector<float> slopes{0.5f, 0.25f};
  CHECK_THROWS_WITH_AS((cuda::engine<insta, format>({.layers = 1, .q_heads = 2, .kv_heads = 1}, {},
                                                    {}, {.slopes = slopes})),
                       doctest::Contains("the kernels add no biases"), bad_argument);
}

// nvcc's host pass rewrites initialisers; this shows that they arrive.
TEST_CASE("streams by name") {
  const fp16 pool{};
  const std::uint32_t table = 0;
  const auto s = cuda::flash_pages(&pool, 7, 32, 16, 3, &table, 5);
  CHECK(s.pages == &pool);
  CHECK(s.page_rows == 32);
  CHECK(s.token_rows == 1);
  CHECK(s.head_rows == 0);
  CHECK(s.page_tokens.value == 16);
  CHECK(s.page_count == 7);
  CHECK(s.table == &table);
  CHECK(s.table_pages == 5);
  CHECK(s.table_page_stride == 3);
  CHECK(s.table_head_stride == 1);
  CHECK(s.table_sequence_stride == 15);
  const auto n = cuda::token_major_pages(&pool, 7, 16, 3, &table, 5);
  CHECK(n.page_rows == 48);
  CHECK(n.token_rows == 3);
  CHECK(n.head_rows == 1);
  CHECK(n.table_sequence_stride == 5);
  CHECK(n.table_page_stride == 1);
}

TEST_CASE("dense attention in device memory, in pinned memory, through a bounce buffer") {
  if (!have_device()) {
    return;
  }
  for (const int tokens : {1, 31, 32, 33, 700}) {
    for (const int group : {1, 3, 8, 16}) {
      check_dense<insta>(tokens, group);
      check_dense<flexgen_gds>(tokens, group);
      check_dense<flexgen>(tokens, group);
    }
  }
  check_dense<insta>(700, 4, {.soft_cap = 5.0f});
  check_dense<insta>(700, 4, {.window = 100, .sinks = 4});
}

TEST_CASE("forks and tokens taken back, in each home of pages") {
  if (!have_device()) {
    return;
  }
  check_fork<insta>();
  check_fork<flexgen_gds>();
  check_fork<flexgen>();
}

TEST_CASE("SparF and SparQ with the device's choice against fp64 with the same choice") {
  if (!have_device()) {
    return;
  }
  for (const int tokens : {40, 700, 5000}) {
    check_sparse<insta_sparf>(tokens, 4);
    check_sparse<flexgen_sparq>(tokens, 4);
  }
}

TEST_CASE("reclaim, empty caches, and an error that leaves the output alone") {
  if (!have_device()) {
    return;
  }
  const random_cache<format> data(5, 300, 4, 2);
  cuda::engine<insta, format> gpu({.layers = 1, .q_heads = 4, .kv_heads = 2}, {});
  const sequence seq = gpu.open();
  std::vector<float> out(data.q.size(), 3.0f);
  gpu.attend(seq, 0, data.q, out);
  CHECK(out == std::vector<float>(out.size(), 0.0f));
  gpu.append(seq, 0, data.k, data.v);
  gpu.reclaim(seq, store::reclaim_range{.tokens_before = 101});
  gpu.attend(seq, 0, data.q, out);
  for (int h = 0; h < 4; ++h) {
    const auto exact =
        test::defined_attention(data.Q(h), data.K(h / 2, 101, 300), data.V(h / 2, 101, 300));
    CHECK(test::relative_error(std::span(out).subspan(static_cast<std::size_t>(h * 64), 64),
                               exact) <= tolerance);
  }
  const std::vector<float> before = out;
  std::vector<float> q = data.q;
  q[7] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_AS(gpu.attend(seq, 0, q, out), bad_argument);
  CHECK(out == before);
  gpu.reclaim(seq);
  CHECK_THROWS_AS(gpu.attend(seq, 0, data.q, out), unknown_sequence);
}
