// Attends of many sequences in one call: equal to single ones, whoever works on what; work dealt by
// bytes.

#include <doctest/doctest.h>

#include <atomic>
#include <memory>
#include <numeric>
#include <thread>

#include "suite.hpp"

using namespace instinfer;

namespace {

using format = kv_format<fp16, 64>;
constexpr int kv_heads = 2;
constexpr int q_heads = 6;
constexpr model_shape gqa{.layers = 1, .q_heads = q_heads, .kv_heads = kv_heads};

// Threads that take one task after the other.
auto threads(std::size_t n) {
  return parallel::on_pool(n, [n](std::size_t count, auto&& task) {
    std::atomic<std::size_t> next{0};
    std::vector<std::jthread> pool;
    for (std::size_t w = 0; w < n; ++w) {
      pool.emplace_back([&, w] {
        for (std::size_t i = next++; i < count; i = next++) {
          task(i, w);
        }
      });
    }
  });
}

// Sequences of the given lengths in one engine, and a request for each.
template <class Engine>
struct filled_batch {
  Engine engine;
  std::vector<attend_request> requests;
  std::vector<std::unique_ptr<test::random_cache<format>>> data;
  std::vector<std::vector<float>> outputs;

  explicit filled_batch(const std::vector<int>& lengths, const model_shape& shape = gqa,
                        const logit_rule& rule = {},
                        const store::capacity& capacity = {.bytes = 64 << 20,
                                                           .context_tokens = 4096})
      : engine{shape, capacity, {}, rule} {
    outputs.resize(lengths.size(),
                   std::vector<float>(static_cast<std::size_t>(shape.q_heads * 64), -1.0f));
    for (std::size_t s = 0; s < lengths.size(); ++s) {
      data.push_back(std::make_unique<test::random_cache<format>>(
          static_cast<unsigned>(s + 1), lengths[s], shape.q_heads, shape.kv_heads));
      const sequence seq = engine.open();
      engine.append(seq, 0, data[s]->k, data[s]->v);
      requests.push_back({seq, data[s]->q, outputs[s]});
    }
  }

  template <class P>
  std::vector<std::vector<float>> attend(const P& workers, traffic* moved = nullptr) {
    for (std::vector<float>& out : outputs) {
      std::ranges::fill(out, -1.0f);
    }
    typename Engine::scratch scratch;
    const receipt done = engine.attend(requests, 0, scratch, workers);
    if (moved != nullptr) {
      *moved = done.traffic;
    }
    return outputs;
  }

  // One request after the other.
  std::vector<std::vector<float>> attend_alone(traffic& moved) {
    std::vector<std::vector<float>> all;
    for (const attend_request& r : requests) {
      std::vector<float>& out = all.emplace_back(r.out.size());
      moved += engine.attend(r.seq, 0, r.q, out).traffic;
    }
    return all;
  }
};

// |a - b| / |b| over a batch, the worst request.
double worst_error(const std::vector<std::vector<float>>& a,
                   const std::vector<std::vector<float>>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    reference::row_vector exact(static_cast<Eigen::Index>(b[i].size()));
    for (std::size_t j = 0; j < b[i].size(); ++j) {
      exact[static_cast<Eigen::Index>(j)] = static_cast<double>(b[i][j]);
    }
    worst = std::max(worst, test::relative_error(a[i], exact));
  }
  return worst;
}

using cpu_dense = cpu::engine<insta, format>;
using cpu_sparf = cpu::engine<insta_sparf, format>;
using cpu_sparq = cpu::engine<flexgen_sparq, format>;
using reference_sparf = reference::engine<insta_sparf, format>;

// A store that counts the bytes that each worker views.
std::vector<std::uint64_t>* viewed = nullptr;
std::size_t viewer = 0;
class counted_store : public store::memory {
 public:
  using memory::memory;
  std::span<const std::byte> view(page_id page) const {
    if (viewed != nullptr) {
      (*viewed)[viewer] += 4096;
    }
    return memory::view(page);
  }
};

}  // namespace

TEST_CASE_TEMPLATE("a batch gives what single attends give", Engine, cpu_dense, cpu_sparf,
                   cpu_sparq, reference_sparf) {
  const bool long_ones = !std::is_same_v<typename Engine::path, reference::path>;
  std::vector<int> lengths{0, 1, 33, 700};
  if (long_ones) {
    lengths.insert(lengths.end(), {12'000, 3000});  // 1.5 MB a head: cut
  }
  filled_batch<Engine> batch(lengths);
  traffic alone, together;
  const auto expected = batch.attend_alone(alone);
  CHECK(batch.attend(parallel::serial{}, &together) == expected);
  CHECK(together == alone);
  // Whole heads: the same bits by any number of threads.
  CHECK(batch.attend(parallel::in_parts{1, threads(3)}, &together) == expected);
  CHECK(together == alone);
  // Heads cut in as many parts as there are workers: to rounding.
  CHECK(worst_error(batch.attend(threads(2)), expected) <= test::tolerance<cpu::path>(12'000));
  // In a fixed number of parts: the same bits whoever works.
  const auto in_five = batch.attend(parallel::in_parts{5, parallel::serial{}}, &together);
  CHECK(together == alone);
  CHECK(worst_error(in_five, expected) <= test::tolerance<cpu::path>(12'000));
  // Of dense attention the long ones are cut; what the others fold is less than two parts.
  CHECK((in_five != expected) == std::is_same_v<Engine, cpu_dense>);
  for (const std::size_t n : {2, 3, 7}) {
    CHECK(batch.attend(parallel::in_parts{5, threads(n)}) == in_five);
  }
#if defined(_OPENMP)
  CHECK(batch.attend(parallel::in_parts{5, parallel::openmp{2}}) == in_five);
#endif
}

TEST_CASE_TEMPLATE("odd groups under masks and caps: cut heads give the same bits whoever works",
                   Engine, cpu_dense, cpu_sparf) {
  for (const int group : {1, 5, 7, 9}) {
    for (const logit_rule& rule :
         {logit_rule{.soft_cap = 20.0f}, logit_rule{.window = 9001, .sinks = 5}}) {
      CAPTURE(group);
      CAPTURE(rule.window);
      filled_batch<Engine> batch({10'000, 17}, {.layers = 1, .q_heads = group, .kv_heads = 1},
                                 rule);
      traffic alone;
      const auto expected = batch.attend_alone(alone);
      CHECK(batch.attend(parallel::in_parts{1, threads(3)}) == expected);
      const auto in_four = batch.attend(parallel::in_parts{4, parallel::serial{}});
      CHECK((in_four != expected) == std::is_same_v<Engine, cpu_dense>);  // it was cut
      CHECK(worst_error(in_four, expected) <= test::tolerance<cpu::path>(10'000));
      for (const std::size_t n : {2, 5}) {
        CHECK(batch.attend(parallel::in_parts{4, threads(n)}) == in_four);
      }
    }
  }
}

TEST_CASE_TEMPLATE(
    "in a fixed number of parts a sequence has the same bits alone and among 16 others", Engine,
    cpu_dense, cpu_sparf) {
  for (const logit_rule& rule : {logit_rule{}, logit_rule{.soft_cap = 20.0f, .window = 15'000}}) {
    std::vector<int> lengths{5000, 9000, 13'000, 20'000, 33'000};  // 1.3 to 8 MB a head
    const std::size_t watched = lengths.size();
    for (int others = 0; others < 16; ++others) {
      lengths.push_back(17 + 250 * others);
    }
    filled_batch<Engine> batch(lengths, gqa, rule, {.bytes = 192 << 20, .context_tokens = 34'000});
    const auto requests = batch.requests;
    for (const std::uint32_t parts : {2u, 4u, 16u}) {
      CAPTURE(parts);
      batch.requests = requests;
      const auto together = batch.attend(parallel::in_parts{parts, parallel::serial{}});
      CHECK(batch.attend(parallel::in_parts{parts, threads(3)}) == together);
      for (std::size_t s = 0; s < watched; ++s) {
        CAPTURE(s);
        batch.requests = {requests[s]};
        for (const std::size_t n : {1, 2, 5}) {
          CHECK(batch.attend(parallel::in_parts{parts, threads(n)})[s] == together[s]);
        }
        batch.requests = {requests.back(), requests[s], requests[(s + 1) % watched]};
        CHECK(batch.attend(parallel::in_parts{parts, threads(2)})[s] == together[s]);
      }
    }
    // The parts make a difference, or the bits would be the same without.
    batch.requests = requests;
    const auto whole = batch.attend(parallel::serial{});
    const auto in_four = batch.attend(parallel::in_parts{4, parallel::serial{}});
    CHECK((whole[3] != in_four[3]) == std::is_same_v<Engine, cpu_dense>);
  }
}

TEST_CASE("one long head in every number of parts, also more than it has pages") {
  for (const int tokens : {9000, 8191}) {
    filled_batch<cpu_dense> dense({tokens});
    filled_batch<cpu_sparf> sparse({tokens});
    traffic moved;
    const auto dense_alone = dense.attend_alone(moved);
    const auto sparse_alone = sparse.attend_alone(moved);
    for (const std::uint32_t parts : {2u, 3u, 7u, 64u, 400u}) {
      CAPTURE(parts);
      const double bound = test::tolerance<cpu::path>(tokens);
      CHECK(worst_error(dense.attend(test::claimed_workers(parts)), dense_alone) <= bound);
      CHECK(worst_error(sparse.attend(test::claimed_workers(parts)), sparse_alone) <= bound);
    }
  }
}

TEST_CASE("skewed batches: no worker reads much more than its share") {
  using engine_type = engine<insta, format, cpu::path, counted_store>;
  std::mt19937 random(5);
  for (const std::vector<int>& lengths :
       {std::vector{30'000}, std::vector{20'000, 500, 500, 500}, std::vector{9000, 9000, 9000},
        std::vector{16'000, 8000, 4000, 2000, 1000, 500}, std::vector<int>(7, 4000)}) {
    filled_batch<engine_type> batch(lengths);
    for (const std::size_t n : {2, 3, 5}) {
      CAPTURE(n);
      std::vector<std::uint64_t> bytes(n);
      // Whoever has read least takes the next task, as an idle thread would.
      const parallel::on_pool pool(n, [&](std::size_t count, auto&& task) {
        for (std::size_t i = 0; i < count; ++i) {
          viewer = static_cast<std::size_t>(std::ranges::min_element(bytes) - bytes.begin());
          task(i, viewer);
        }
      });
      viewed = &bytes;
      (void)batch.attend(pool);
      viewed = nullptr;
      const std::uint64_t all = std::accumulate(bytes.begin(), bytes.end(), std::uint64_t{0});
      // 1/16 of its share or 256 KiB; pages and tiles are not divisible: 3 of 8 KiB a cut head.
      const std::uint64_t fair = all / n;
      CHECK(*std::ranges::max_element(bytes) <=
            fair + std::max(fair / 16, least_split_bytes) + 3 * 8192 * kv_heads * lengths.size());
    }
  }
}

TEST_CASE("a bad request leaves all outputs untouched") {
  filled_batch<cpu_dense> batch({40, 50, 60});
  cpu_dense::scratch scratch;
  const auto refused = [&](const std::vector<std::string>& words) {
    try {
      batch.engine.attend(batch.requests, 0, scratch, parallel::serial{});
      FAIL("was accepted");
    } catch (const error& e) {
      for (const std::string& word : words) {
        CHECK(std::string(e.what()).find(word) != std::string::npos);
      }
    }
    CHECK(batch.outputs == std::vector(3, std::vector<float>(q_heads * 64, -1.0f)));
  };
  batch.requests[2].q = batch.requests[2].q.first(100);
  refused({"q must be [6, 64]", "got 100 and 384"});
  batch.requests[2].q = batch.data[2]->q;
  batch.requests[2].seq.generation = 77;
  refused({"sequence 2", "is not open"});
  batch.requests[2].seq.generation = 0;
  std::vector<float> with_nan(batch.data[1]->q);
  with_nan[64 + 3] = std::nanf("");
  batch.requests[1].q = with_nan;
  refused({"q must be finite, is not at [head 1, dim 3]"});
  batch.requests[1].q = batch.data[1]->q;
  CHECK_THROWS_WITH_AS(
      batch.engine.attend(batch.requests, 0, scratch, parallel::in_parts{0, parallel::serial{}}),
      "attend: the parallel policy must have 1 to 65536 parts, has 0", bad_argument);
  CHECK(batch.engine.attend(std::span<const attend_request>{}, 0, scratch, parallel::serial{})
            .traffic == traffic{});
}
