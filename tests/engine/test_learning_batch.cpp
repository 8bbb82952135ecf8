// A sequence that stands twice in a batch: refused where a method learns from its queries, answered
// twice elsewhere.

#include <doctest/doctest.h>

#include <array>
#include <random>
#include <vector>

#include "instinfer/methods.hpp"
#include "instinfer/reference.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test_learning_batch {

namespace {

using format = kv_format<fp16, 64>;

template <class Method>
struct batch_of_two {
  using point = design<Method, layout::token_indexed<>, flash::instcsd, transfer::in_storage>;
  reference::engine<point, format> engine{{}, {.bytes = 4 << 20, .context_tokens = 256}};
  sequence a = engine.open();
  sequence b = engine.open();
  std::vector<float> q = std::vector<float>(64, 0.25f);
  std::array<std::vector<float>, 2> out{std::vector<float>(64, -1.0f),
                                        std::vector<float>(64, -1.0f)};

  batch_of_two() {
    std::mt19937 random(1);
    normal_distribution normal;
    std::vector<fp16> k(80 * 64);
    std::vector<fp16> v(k.size());
    for (fp16& x : k) {
      x = from_float<fp16>(normal(random));
    }
    for (fp16& x : v) {
      x = from_float<fp16>(normal(random));
    }
    engine.append(a, 0, k, v);
    engine.append(b, 0, k, v);
  }

  void attend(sequence first, sequence second) {
    const attend_request requests[] = {{first, q, out[0]}, {second, q, out[1]}};
    typename decltype(engine)::scratch work;
    engine.attend(requests, 0, work, parallel::serial{});
  }
};

template <class Method>
void check_refused() {
  batch_of_two<Method> two;
  CHECK_THROWS_WITH_AS(two.attend(two.b, two.b),
                       "attend: sequence 1 stands twice in the batch; a method that learns from "
                       "its queries takes one request a sequence",
                       bad_argument);
  CHECK(two.out[0] == std::vector<float>(64, -1.0f));
  two.attend(two.a, two.b);  // what was refused has taught nothing
  CHECK(two.out[0] == two.out[1]);
}

}  // namespace

TEST_CASE("batch: a sequence twice is refused by methods that learn from their queries") {
  check_refused<attention::h2o>();
  check_refused<attention::hgca>();
  check_refused<attention::retro_infer>();
}

TEST_CASE("batch: a sequence twice is answered twice by methods that learn nothing") {
  batch_of_two<attention::quest> two;
  two.attend(two.a, two.a);
  CHECK(two.out[0] == two.out[1]);
  CHECK(two.out[0] != std::vector<float>(64, -1.0f));
}

}  // namespace instinfer::test_learning_batch
