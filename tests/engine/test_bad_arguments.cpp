// Arguments that an engine refuses before it does anything: each names what it got and what would
// be right.

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <vector>

#include "instinfer/reference.hpp"

namespace instinfer::test_bad_arguments {

namespace {

using format = kv_format<fp16, 64>;
using engine_type = reference::engine<insta, format>;
const store::capacity small{.bytes = 4 << 20, .context_tokens = 256};

void refused(const model_shape& shape, const store::capacity& capacity, const std::string& why,
             const logit_rule& rule = {}) {
  CAPTURE(why);
  try {
    engine_type e(shape, capacity, {}, rule);
    FAIL("was taken");
  } catch (const error& e) {
    CHECK(std::string(e.what()).find(why) != std::string::npos);
  }
}

}  // namespace

TEST_CASE(
    "shape: products of heads and dims that an int cannot hold are named, and crash nothing") {
  refused({.layers = 1, .q_heads = 1 << 26, .kv_heads = 1 << 26}, small, "field Head");
  refused({.layers = std::numeric_limits<int>::max(), .q_heads = 1, .kv_heads = 1}, small,
          "field Layer");
  engine_type wide({.layers = 1, .q_heads = 1 << 26, .kv_heads = 1}, small);
  const sequence seq = wide.open();
  std::vector<float> q(64);
  std::vector<float> out(64);
  CHECK_THROWS_AS(wide.attend(seq, 0, q, out), bad_argument);
}

TEST_CASE("capacity: no context, and more bytes than this machine has memory") {
  refused({}, {.bytes = 4 << 20, .context_tokens = 0}, "context_tokens must be positive, got 0");
  const engine_type large({}, {.bytes = std::uint64_t{1} << 40, .context_tokens = 256});
  CHECK(large.cache().pages().capacity_pages() == (std::uint64_t{1} << 40) / 4096);
}

TEST_CASE("logit rule: sinks without a window are refused") {
  refused({}, small, "sinks are for a window, got 4", {.sinks = 4});
}

TEST_CASE("reclaim: no layer is not silently nothing") {
  engine_type e({.layers = 3}, small);
  const sequence seq = e.open();
  std::vector<fp16> kv(64);
  for (int l = 0; l < 3; ++l) {
    e.append(seq, l, kv, kv);
  }
  CHECK_THROWS_WITH_AS(e.reclaim(seq, {.first_layer = 0, .end_layer = 0, .tokens_before = 1}),
                       "reclaim: layers [0, 0) must be one layer or more within [0, 3)",
                       bad_argument);
  CHECK_THROWS_AS(e.reclaim(seq, {.first_layer = 3, .tokens_before = 1}), bad_argument);
  CHECK(e.tokens(seq, 0) == 1);
  e.reclaim(seq, {.first_layer = 1, .end_layer = 2, .tokens_before = 1});
  CHECK(e.tokens(seq, 0) == 1);
  CHECK(e.tokens(seq, 1) == 0);
  CHECK(e.tokens(seq, 2) == 1);
}

TEST_CASE("parallel: workers and parts outside 1 to 65536") {
  engine_type e({}, small);
  const sequence seq = e.open();
  std::vector<fp16> kv(100 * 64);
  e.append(seq, 0, kv, kv);
  std::vector<float> q(64);
  std::vector<float> out(64, -1.0f);
  engine_type::scratch work;
  const auto why = [&](const auto& workers) -> std::string {
    try {
      e.attend(seq, 0, q, out, work, workers);
    } catch (const bad_argument& error) {
      return error.what();
    }
    return "";
  };
  const std::string rule = "attend: the parallel policy must have 1 to 65536 ";
#if defined(_OPENMP)
  CHECK(why(parallel::openmp{-1}) == rule + "workers, has -1");
#endif
  CHECK(why(parallel::on_pool{0, [](std::size_t, auto&&) {}}) == rule + "workers, has 0");
  CHECK(why(parallel::in_parts{100'000'000, parallel::serial{}}) == rule + "parts, has 100000000");
  CHECK(out == std::vector<float>(64, -1.0f));
  CHECK(why(parallel::in_parts{1000, parallel::serial{}}).empty());
}

}  // namespace instinfer::test_bad_arguments
