// A decode of 300 steps through append, attend and reclaim, over several sequences and layers,
// against fp64.

#include "suite.hpp"

using namespace instinfer;

namespace {

using format = kv_format<fp16, 64>;

// One sequence of the decode: its own values, one layer each.
struct request {
  test::random_cache<format> data;
  sequence handle;
  int tokens = 0;
  int first = 0;
};

template <class Engine>
void check_request(Engine& engine, const request& r, int layer, double bound) {
  std::vector<float> out(6 * 64);
  const receipt done = engine.attend(r.handle, layer, r.data.q, out);
  CHECK(engine.tokens(r.handle, layer) == static_cast<std::uint32_t>(r.tokens - r.first));
  for (int h = 0; h < 6; ++h) {
    const auto expected = test::defined_attention(r.data.Q(h), r.data.K(h / 3, r.first, r.tokens),
                                                  r.data.V(h / 3, r.first, r.tokens));
    CHECK(test::relative_error(std::span(out).subspan(static_cast<std::size_t>(h) * 64, 64),
                               expected) <= bound);
  }
  CHECK(done.traffic.pages_read <= static_cast<std::uint64_t>(2 * 2 * ((r.tokens + 31) / 32)));
}

template <class Engine>
void decode(const typename Engine::policy& policy) {
  Engine engine({.layers = 2, .q_heads = 6, .kv_heads = 2},
                {.bytes = 4 << 20, .context_tokens = 512}, policy);
  std::vector<request> requests;
  for (unsigned i = 0; i < 3; ++i) {
    requests.push_back({test::random_cache<format>(70 + i, 500, 6, 2), engine.open()});
  }
  for (int layer = 0; layer < 2; ++layer) {  // prompts of unlike length
    for (std::size_t i = 0; i < requests.size(); ++i) {
      request& r = requests[i];
      r.tokens = 50 + 30 * static_cast<int>(i);
      engine.append(r.handle, layer, r.data.k_tokens(0, r.tokens), r.data.v_tokens(0, r.tokens));
    }
  }
  const std::uint64_t free_at_start = engine.cache().pages().capacity_pages();
  const double bound = test::tolerance<typename Engine::path>(500);
  for (int step = 0; step < 300; ++step) {
    CAPTURE(step);
    for (request& r : requests) {
      for (int layer = 0; layer < 2; ++layer) {
        engine.append(r.handle, layer, r.data.k_tokens(r.tokens, r.tokens + 1),
                      r.data.v_tokens(r.tokens, r.tokens + 1));
      }
      ++r.tokens;
      if (step % 10 == 0) {
        check_request(engine, r, step / 10 % 2, bound);
      }
    }
    if (step == 150) {  // one request ends, another takes its slot; its handle must not
      const sequence old = requests[1].handle;
      engine.reclaim(old);
      CHECK_THROWS_AS(engine.reclaim(old), unknown_sequence);
      requests[1] = {test::random_cache<format>(90, 500, 6, 2), engine.open()};
      CHECK(requests[1].handle.slot == old.slot);
      CHECK_THROWS_AS((void)engine.tokens(old, 0), unknown_sequence);
    }
    if (step == 200) {  // the oldest tokens of one request go
      requests[2].first = 75;
      engine.reclaim(requests[2].handle, {.first_layer = 0, .end_layer = 2, .tokens_before = 75});
    }
  }
  for (const request& r : requests) {
    check_request(engine, r, 0, bound);
    check_request(engine, r, 1, bound);
    engine.reclaim(r.handle);
  }
  CHECK(engine.cache().pages().free_pages() == free_at_start);
}

}  // namespace

TEST_CASE("300 steps on the CPU path, dense") { decode<cpu::engine<insta, format>>({}); }
TEST_CASE("300 steps on the reference path, dense") {
  decode<reference::engine<insta, format>>({});
}

TEST_CASE("300 steps of SparF on the CPU path equal the reference path") {
  cpu::engine<insta_sparf, format> fast({.layers = 1, .q_heads = 6, .kv_heads = 2},
                                        {.context_tokens = 1024});
  reference::engine<insta_sparf, format> exact({.layers = 1, .q_heads = 6, .kv_heads = 2},
                                               {.context_tokens = 1024});
  const test::random_cache<format> data(80, 900, 6, 2);
  const sequence a = fast.open();
  const sequence b = exact.open();
  fast.append(a, 0, data.k_tokens(0, 600), data.v_tokens(0, 600));
  exact.append(b, 0, data.k_tokens(0, 600), data.v_tokens(0, 600));
  std::vector<float> mine(6 * 64);
  std::vector<float> theirs(6 * 64);
  for (int t = 600; t < 900; ++t) {
    fast.append(a, 0, data.k_tokens(t, t + 1), data.v_tokens(t, t + 1));
    exact.append(b, 0, data.k_tokens(t, t + 1), data.v_tokens(t, t + 1));
    if (t == 750) {
      fast.reclaim(a, {.first_layer = 0, .end_layer = 1, .tokens_before = 333});
      exact.reclaim(b, {.first_layer = 0, .end_layer = 1, .tokens_before = 333});
    }
    const receipt m = fast.attend(a, 0, data.q, mine);
    const receipt n = exact.attend(b, 0, data.q, theirs);
    CHECK(m.traffic == n.traffic);
    for (std::size_t i = 0; i < mine.size(); ++i) {
      CHECK(mine[i] ==
            doctest::Approx(theirs[i]).epsilon(test::tolerance<cpu::path>(900)).scale(1.0));
    }
  }
}
