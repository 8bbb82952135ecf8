// Out of memory at every allocation of every call: the cache is as it was, and nothing is lost or
// given back twice.

#include <new>
#include <random>
#include <sstream>
#include <vector>

#include <doctest/doctest.h>

#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/engine/layered_engine.hpp"
#include "tests/support/counted_allocations.hpp"
#include "tests/support/normals.hpp"
#include "tests/support/shared_attends.hpp"

namespace instinfer::test_failures {

using test::allocations_left;

namespace {

using format = kv_format<fp16, 64>;
template <class Format>
using engine_of = reference::engine<insta_sparf, Format>;

struct state {
  std::uint64_t free_pages;
  std::uint32_t tokens;
  std::uint64_t positions;
  std::vector<float> out;
  friend bool operator==(const state&, const state&) = default;
};

template <class Engine>
state look(Engine& e, sequence seq, const std::vector<float>& q) {
  std::vector<float> out(q.size());
  e.attend(seq, 0, q, out);
  return {e.cache().pages().free_pages(), e.tokens(seq, 0), e.positions(seq, 0), out};
}

// Runs `call` with the n-th allocation failing, for n = 0, 1, ... until none fails. Returns the
// number of failures.
template <class Engine, class Call>
int fail_everywhere(Engine& e, sequence seq, const std::vector<float>& q, Call&& call) {
  const state before = look(e, seq, q);
  for (int n = 0;; ++n) {
    CAPTURE(n);
    allocations_left = n;
    try {
      call();
      allocations_left = -1;
      return n;
    } catch (const std::bad_alloc&) {
      allocations_left = -1;
      CHECK(look(e, seq, q) == before);
    }
  }
}

}  // namespace

TEST_CASE_TEMPLATE("append and reclaim under failing allocations", Format, kv_format<fp16, 64>,
                   kv_format<int8_pages<fp16>, 64>) {
  std::mt19937 random(1);
  normal_distribution normal;
  const auto draw = [&](std::size_t tokens) {
    std::vector<fp16> x(tokens * 2 * 64);
    for (fp16& e : x) {
      e = from_float<fp16>(normal(random));
    }
    return x;
  };
  engine_of<Format> e({.layers = 1, .q_heads = 4, .kv_heads = 2},
                      {.bytes = 4 << 20, .context_tokens = 1024});
  const sequence seq = e.open();
  std::vector<float> q(4 * 64);
  for (float& x : q) {
    x = normal(random);
  }
  const std::vector<fp16> first = draw(40);
  const std::vector<fp16> k = draw(700);
  const std::vector<fp16> v = draw(700);
  e.append(seq, 0, first, first);
  CHECK(fail_everywhere(e, seq, q, [&] { e.append(seq, 0, k, v); }) > 0);
  CHECK(e.positions(seq, 0) == 740);
  fail_everywhere(e, seq, q, [&] { e.reclaim(seq, {.tokens_before = 300}); });
  CHECK(e.tokens(seq, 0) == 440);
  fail_everywhere(e, seq, q, [&] { e.append(seq, 0, draw(3), draw(3)); });
  // Into tiles that were sealed at once, so that open pages must grow.
  const sequence prompt = e.open();
  const std::vector<fp16> whole = draw(512);
  e.append(prompt, 0, whole, whole);
  CHECK(fail_everywhere(e, prompt, q, [&] { e.truncate(prompt, 501); }) > 0);
  CHECK(e.tokens(prompt, 0) == 501);
  sequence copy;
  CHECK(fail_everywhere(e, prompt, q, [&] { copy = e.fork(prompt); }) > 0);
  CHECK(copy.slot == prompt.slot + 1);
  CHECK(look(e, copy, q) == look(e, prompt, q));
  e.reclaim(copy);
  e.reclaim(prompt);
  allocations_left = 0;  // reclaim of a sequence needs no memory
  e.reclaim(seq);
  allocations_left = -1;
  CHECK(e.cache().pages().free_pages() == e.cache().pages().capacity_pages());
}

TEST_CASE("load under failing allocations") {
  using engine_type = engine_of<kv_format<fp16, 64>>;
  const model_shape shape{.layers = 1, .q_heads = 4, .kv_heads = 2};
  const std::vector<fp16> k(700 * 2 * 64, from_float<fp16>(0.5f));
  const std::vector<float> q(4 * 64, 1.0f);
  engine_type from(shape, {.bytes = 4 << 20, .context_tokens = 1024});
  const sequence saved = from.open();
  from.append(saved, 0, k, k);
  std::stringstream file;
  from.save(saved, file);

  engine_type e(shape, {.bytes = 4 << 20, .context_tokens = 1024});
  const sequence other = e.open();
  const sequence seq = e.open();
  e.append(other, 0, k, k);
  bool stayed_empty = true;
  CHECK(fail_everywhere(e, other, q, [&] {
          stayed_empty = stayed_empty && e.positions(seq, 0) == 0;
          file.seekg(0);
          e.load(seq, file);
        }) > 0);
  CHECK(stayed_empty);
  CHECK(look(e, seq, q).out == look(from, saved, q).out);
}

template <class Format, class Store>
using engine_of_kind = engine<insta_sparf, Format, reference::path, Store>;

TEST_CASE("forks of layers that differ under failing allocations: all kinds, or none") {
  layered_engine<engine_of_kind, store::memory, format, format> e(
      {0, 1}, {{{2, 2, {.window = 30}}, {2, 1}}}, {.bytes = 2 << 20, .context_tokens = 256}, 4);
  const sequence seq = e.open();
  const std::vector<fp16> rows(300 * 2 * 64, from_float<fp16>(0.5f));
  e.append(seq, 0, rows, rows);
  e.append(seq, 1, rows, rows);
  const std::uint64_t free_pages = e.pages().free_pages();
  std::vector<sequence> opened;  // several, so that every table grows once
  opened.reserve(4);
  int failures = 0;
  while (opened.size() < 4) {
    for (int n = 0;; ++n) {
      allocations_left = n;
      try {
        opened.push_back(opened.size() < 2 ? e.fork(seq) : e.open());
        allocations_left = -1;
        break;
      } catch (const std::bad_alloc&) {
        allocations_left = -1;
        ++failures;
      }
    }
  }
  CHECK(failures > 20);
  CHECK(e.pages().free_pages() == free_pages);
  for (const sequence s : opened) {
    e.reclaim(s);
  }
  e.reclaim(seq);
  CHECK(e.pages().free_pages() == e.pages().capacity_pages());
}

TEST_CASE("attend allocates nothing once it has grown, and little while the cache grows") {
  cpu::engine<insta_sparf, format> e({.layers = 1, .q_heads = 4, .kv_heads = 2},
                                     {.bytes = 8 << 20, .context_tokens = 4096});
  const sequence seq = e.open();
  const std::vector<fp16> row(2 * 64, from_float<fp16>(0.5f));
  const std::vector<fp16> prompt(2000 * 2 * 64, from_float<fp16>(0.25f));
  e.append(seq, 0, prompt, prompt);
  const std::vector<float> q(4 * 64, 1.0f);
  std::vector<float> out(4 * 64);
  for (int i = 0; i < 3; ++i) {
    e.attend(seq, 0, q, out);
  }
  constexpr long many = 1'000'000;
  allocations_left = many;
  for (int i = 0; i < 10; ++i) {
    e.attend(seq, 0, q, out);
  }
  CHECK(allocations_left == many);
  allocations_left = -1;
  long spent = 0;
  for (int step = 0; step < 500; ++step) {
    e.append(seq, 0, row, row);
    allocations_left = many;
    e.attend(seq, 0, q, out);
    spent += many - allocations_left;
    allocations_left = -1;
  }
  CHECK(spent <= 20);  // buffers that double
}

}  // namespace instinfer::test_failures
