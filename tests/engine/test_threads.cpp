// What may run at the same time on one engine: attends, each with its own workspace, and reads of
// counts. Run under -fsanitize=thread, too.

#include <doctest/doctest.h>

#include <random>
#include <thread>
#include <vector>

#include "instinfer/methods.hpp"
#include "instinfer/reference.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test_threads {

namespace {

using format = kv_format<fp16, 64>;
constexpr int threads = 3;
constexpr int queries = 4;

template <class Method>
struct shared_engine {
  using point = design<Method, layout::token_indexed<>, flash::instcsd, transfer::in_storage>;
  using engine_type = reference::engine<point, format>;
  engine_type engine{{}, {.bytes = 4 << 20, .context_tokens = 256}};
  std::vector<sequence> sequences;

  shared_engine() {
    std::mt19937 random(1);
    normal_distribution normal;
    std::vector<fp16> k(150 * 64);
    for (int s = 0; s < threads; ++s) {
      for (fp16& x : k) {
        x = from_float<fp16>(normal(random));
      }
      sequences.push_back(engine.open());
      engine.append(sequences.back(), 0, k, k);
    }
  }

  // Outputs [queries, 64] of one thread's attends on a sequence.
  std::vector<float> attend(sequence seq) const {
    typename engine_type::scratch work;
    std::vector<float> out(queries * 64);
    for (int i = 0; i < queries; ++i) {
      const std::vector<float> q(64, 0.1f * static_cast<float>(i + 1));
      engine.attend(seq, 0, q, std::span(out).subspan(static_cast<std::size_t>(i) * 64, 64), work,
                    parallel::serial{});
    }
    return out;
  }

  // The same by several threads, thread t on sequence of(t), while this one reads counts.
  template <class Of>
  std::vector<std::vector<float>> attend_together(Of&& of) const {
    std::vector<std::vector<float>> out(threads);
    std::vector<std::jthread> running;
    for (std::size_t t = 0; t < threads; ++t) {
      running.emplace_back([&, t] { out[t] = attend(sequences[of(t)]); });
    }
    for (int i = 0; i < 1000; ++i) {
      REQUIRE(engine.tokens(sequences[0], 0) == 150);
      REQUIRE(engine.positions(sequences[1], 0) == 150);
      REQUIRE(engine.cache().pages().free_pages() > 0);
      REQUIRE(engine.cache().at(sequences[2], 0).open_bytes() > 0);
    }
    running.clear();
    return out;
  }
};

}  // namespace

TEST_CASE_TEMPLATE("threads: one sequence, by methods that learn nothing", Method, attention::dense,
                   attention::quest, attention::sparf) {
  const shared_engine<Method> shared;
  const std::vector<float> alone = shared.attend(shared.sequences[1]);
  for (const auto& out : shared.attend_together([](std::size_t) { return std::size_t{1}; })) {
    CHECK(out == alone);
  }
}

TEST_CASE_TEMPLATE("threads: each its own sequence, by methods that learn", Method, attention::h2o,
                   attention::hgca, attention::retro_infer) {
  const shared_engine<Method> shared;
  const auto together = shared.attend_together([](std::size_t t) { return t; });
  const shared_engine<Method> again;
  for (std::size_t t = 0; t < threads; ++t) {
    CHECK(together[t] == again.attend(again.sequences[t]));
  }
}

}  // namespace instinfer::test_threads
