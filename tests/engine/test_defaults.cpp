// Methods with their defaults on the smallest models: a method selects, or its receipt shows that
// it read everything.

#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "instinfer/methods.hpp"
#include "instinfer/reference.hpp"
#include "tests/support/normals.hpp"

namespace instinfer::test_defaults {

namespace {

constexpr std::uint32_t tokens = 2048;
constexpr std::uint64_t pages_of_all = 2 * tokens / 32;  // 32 tokens of 64 dims in fp16 a page

// Pages that one attend of the last layer reads.
template <class Method>
std::uint64_t pages_read(int layers, bool build = false) {
  using format = kv_format<fp16, 64>;
  using point = design<Method, layout::token_indexed<>, flash::instcsd, transfer::in_storage>;
  reference::engine<point, format> engine{{.layers = layers},
                                          {.bytes = 16 << 20, .context_tokens = tokens}};
  const sequence seq = engine.open();
  std::mt19937 random(1);
  normal_distribution normal;
  std::vector<fp16> k(tokens * 64);
  for (fp16& x : k) {
    x = from_float<fp16>(normal(random));
  }
  engine.append(seq, layers - 1, k, k);
  if constexpr (requires { engine.build(seq, 0); }) {
    if (build) {
      engine.build(seq, layers - 1);
    }
  }
  std::vector<float> q(64, 0.25f);
  std::vector<float> out(64);
  return engine.attend(seq, layers - 1, q, out).traffic.pages_read;
}

}  // namespace

TEST_CASE("quest's defaults select in models of one layer, two layers and more") {
  CHECK(pages_read<attention::quest>(1) < pages_of_all / 2);
  CHECK(pages_read<attention::quest>(2) < pages_of_all / 2);
  CHECK(pages_read<attention::quest>(3) < pages_of_all / 2);
}

TEST_CASE("methods over clusters read all pages before build(), and fewer after it") {
  CHECK(pages_read<attention::retro_infer>(1) == pages_of_all);
  CHECK(pages_read<attention::retro_infer>(1, true) < pages_of_all / 2);
  CHECK(pages_read<attention::squeezed>(1) == pages_of_all);
}

}  // namespace instinfer::test_defaults
