// A decode on the flash path computes as the paths that it times, and charges exactly the planned
// pages.

#include <doctest/doctest.h>

#include <array>
#include <limits>
#include <map>
#include <tuple>
#include <vector>

#include "instinfer/flash/engine.hpp"
#include "tests/paths/random_cache.hpp"
#include "tests/support/shared_attends.hpp"
#include "tests/support/timed_cache.hpp"

namespace instinfer::test_decode {

using namespace test;

namespace {

using format = kv_format<fp16, 64>;
constexpr int dim = 64;
constexpr model_shape shape{.layers = 2, .q_heads = 6, .kv_heads = 2};  // GQA 3
const store::capacity capacity{.bytes = 16 << 20, .context_tokens = 512};

// What a machine planned, in order, with nothing left out.
struct planned_read {
  stream kind;
  std::uint32_t token_tile, dim_tile;
  page_id page;
  bool buffered;
  std::vector<index_run> tokens, dims;
  friend bool operator==(const planned_read&, const planned_read&) = default;
};

std::vector<planned_read> planned(const test::recorder& seen) {
  std::vector<planned_read> all;
  for (const test::head_record& head : seen.heads) {
    for (const access_plan& plan : head.plans) {
      for (const page_read& read : plan.reads()) {
        const auto tokens = plan.tokens(read).runs();
        const auto dims = plan.dims(read).runs();
        all.push_back({read.kind,
                       read.token_tile,
                       read.dim_tile,
                       read.page,
                       read.buffered,
                       {tokens.begin(), tokens.end()},
                       {dims.begin(), dims.end()}});
      }
    }
  }
  return all;
}

using place = std::array<std::int32_t, 4>;  // channel, chip, die, plane

std::map<place, int> places(const std::map<page_id, int>& pages, const flash::geometry& g) {
  const flash::placement where{g};
  std::map<place, int> all;
  for (const auto& [page, n] : pages) {
    const flash::location at = where(page);
    all[{at.channel, at.chip, at.die, at.plane}] += n;
  }
  return all;
}

// The array reads of a trace by the plane that did them.
std::map<place, int> places(const std::vector<test::trace_bar>& bars) {
  std::map<place, int> all;
  for (const test::trace_bar& bar : bars) {
    if (bar.name == "array read") {
      place at{};
      REQUIRE(std::sscanf(bar.group.c_str(), "channel %d", &at[0]) == 1);
      REQUIRE(std::sscanf(bar.row.c_str(), "chip %d die %d plane %d", &at[1], &at[2], &at[3]) == 3);
      ++all[at];
    }
  }
  return all;
}

// A decode on four engines at once: timed and plain, on the CPU and the reference path.
template <class D>
void check_decode(unsigned seed) {
  CAPTURE(seed);
  const test::random_cache<format> data(seed, 420, shape.q_heads, shape.kv_heads);
  flash::engine<D, format, cpu::path> timed(shape, capacity);
  cpu::engine<D, format> plain(shape, capacity);
  flash::engine<D, format, reference::path> timed_exact(shape, capacity);
  reference::engine<D, format> exact(shape, capacity);
  const std::array<sequence, 4> seqs{timed.open(), plain.open(), timed_exact.open(), exact.open()};
  const auto with_all = [&](auto&& f) {
    return std::tuple{f(timed, seqs[0]), f(plain, seqs[1]), f(timed_exact, seqs[2]),
                      f(exact, seqs[3])};
  };

  std::array<std::vector<float>, 4> out;
  for (std::vector<float>& o : out) {
    o.assign(static_cast<std::size_t>(shape.q_heads * dim), -1.0f);
  }
  int tokens = 0;
  for (int step = 0; step <= 60; ++step) {
    const int layer = step % 2;
    CAPTURE(step);
    // Nothing, a prompt a layer, a decode.
    const int more = step == 0 ? 0 : step <= 2 ? 300 : 1 + step % 3;
    const int first = step <= 2 ? 0 : tokens;
    tokens = step <= 2 ? more : tokens + more;
    for (int l = step <= 2 ? layer : 0; l <= (step <= 2 ? layer : 1); ++l) {
      const auto [a, b, c, d] = with_all([&](auto& engine, sequence t) {
        return engine.append(t, l, data.k_tokens(first, tokens), data.v_tokens(first, tokens));
      });
      CHECK(a.traffic == b.traffic);
      CHECK(a.traffic == c.traffic);
      CHECK(a.traffic == d.traffic);
      CHECK((a.total_ns() > 0) == (tokens > first));
    }
    if (step == 40) {
      with_all([&](auto& engine, sequence t) {
        engine.reclaim(t, {.first_layer = 0, .end_layer = 2, .tokens_before = 77});
        return 0;
      });
    }
    if (step > 2 && step % 4 > 1) {
      continue;
    }
    flash::chrome_trace trace;
    const flash::receipt a = timed.attend(seqs[0], layer, data.q, out[0], &trace);
    const receipt b = plain.attend(seqs[1], layer, data.q, out[1]);
    const flash::receipt c = timed_exact.attend(seqs[2], layer, data.q, out[2]);
    const receipt d = exact.attend(seqs[3], layer, data.q, out[3]);
    CHECK(out[0] == out[1]);
    CHECK(out[2] == out[3]);
    CHECK(a.traffic == b.traffic);
    CHECK(a.traffic == c.traffic);
    CHECK(a.traffic == d.traffic);
    check_same(a, c);  // the same pages take the same time

    const test::recorder mine = watch(timed.inner(), seqs[0], layer, data.q);
    const test::recorder theirs = watch(exact, seqs[3], layer, data.q);
    std::uint64_t planned_pages = 0;
    for (const auto& [page, n] : mine.pages()) {
      planned_pages += static_cast<std::uint64_t>(n);
    }
    CHECK(charged_pages(a) == a.traffic.pages_read);
    CHECK(charged_pages(a) == planned_pages);
    CHECK(mine.pages() == theirs.pages());
    CHECK(planned(mine) == planned(theirs));
    CHECK(planned(mine) == planned(watch(plain, seqs[1], layer, data.q)));
    // The timeline's array reads are those pages, plane by plane.
    CHECK(places(bars_of(trace)) == places(mine.pages(), timed.drive().geometry));
  }
}

}  // namespace

TEST_CASE_TEMPLATE(
    "flash engine: a decode computes as the path it times, and charges the planned pages", D, insta,
    insta_sparf, flexgen, flexgen_sparq) {
  for (const unsigned seed : {21u, 22u}) {
    check_decode<D>(seed);
  }
}

TEST_CASE("flash engine: decode and prefill take the times of their appends and attends") {
  using timed = flash::engine<insta_sparf, format, cpu::path>;
  const test::random_cache<format> data(23, 303, shape.q_heads, shape.kv_heads);
  timed together(shape, capacity), apart(shape, capacity);
  const sequence a = together.open();
  const sequence b = apart.open();
  const auto k = [&](int first, int last) { return data.k_tokens(first, last); };
  const auto v = [&](int first, int last) { return data.v_tokens(first, last); };
  const flash::receipt prompt = together.prefill(a, 1, k(0, 300), v(0, 300));
  CHECK(prompt.total_ns() == apart.append(b, 1, k(0, 300), v(0, 300)).total_ns());

  std::vector<float> q(2 * data.q.size()), out(q.size()), expected(q.size());
  for (std::size_t i = 0; i < q.size(); ++i) {
    q[i] = data.q[i % data.q.size()] * (i < data.q.size() ? 1.0f : -0.5f);
  }
  const auto row = data.q.size();
  const flash::receipt two = together.decode(a, 1, k(300, 302), v(300, 302), q, out);
  double ns = 0;
  std::uint64_t pages = 0;
  std::size_t phases = 0;
  for (int i = 0; i < 2; ++i) {
    const auto at = static_cast<std::size_t>(i) * row;
    ns += apart.append(b, 1, k(300 + i, 301 + i), v(300 + i, 301 + i)).total_ns();
    const flash::receipt attended =
        apart.attend(b, 1, std::span(q).subspan(at, row), std::span(expected).subspan(at, row));
    ns += attended.total_ns();
    pages += attended.traffic.pages_read;
    phases += attended.phases.size();
  }
  CHECK(out == expected);
  CHECK(two.total_ns() == doctest::Approx(ns).epsilon(1e-12));
  CHECK(two.traffic.pages_read == pages);
  CHECK(two.phases.size() == phases);

  // A refused query takes the token back, and the next decode is as if it had not been there.
  q[3] = std::numeric_limits<float>::quiet_NaN();
  const new_tokens<fp16> next{k(302, 303), v(302, 303)};
  const attend_request queries{a, std::span(q).first(row), std::span(out).first(row)};
  CHECK_THROWS_AS(together.decode_batch(1, {&next, 1}, {&queries, 1}), bad_argument);
  CHECK(together.tokens(a, 1) == 302);
  q[3] = 0.25f;
  const flash::receipt one = together.decode_batch(1, {&next, 1}, {&queries, 1});
  const flash::receipt appended = apart.append(b, 1, next.k, next.v);
  const flash::receipt attended = apart.attend(b, 1, queries.q, std::span(expected).first(row));
  CHECK(out == expected);
  CHECK(one.total_ns() ==
        doctest::Approx(appended.total_ns() + attended.total_ns()).epsilon(1e-12));
}

}  // namespace instinfer::test_decode
