// Handles of sequences: only a handle that this cache opened, and has not reclaimed, names a
// sequence.

#include <doctest/doctest.h>

#include <utility>
#include <vector>

#include "instinfer/flash/engine.hpp"
#include "instinfer/instinfer.hpp"

namespace instinfer::test_sequence_handles {

namespace {

using engine_type = flash::engine<insta, kv_format<fp16, 64>>;
const model_shape shape{.layers = 2, .q_heads = 2, .kv_heads = 2};
const store::capacity capacity{.bytes = 4 << 20, .context_tokens = 256};

}  // namespace

TEST_CASE("handle: one that nobody opened is unknown, also where a sequence is open") {
  engine_type e(shape, capacity);
  CHECK_THROWS_AS(e.tokens(sequence{}, 0), unknown_sequence);
  const sequence open = e.open();
  CHECK(e.tokens(open, 0) == 0);
  CHECK_THROWS_AS(e.tokens(sequence{}, 0), unknown_sequence);
  CHECK_THROWS_AS(e.append_count(sequence{}, 0, 1), unknown_sequence);
  CHECK_THROWS_AS(e.reclaim(sequence{}), unknown_sequence);
  CHECK(e.tokens(open, 0) == 0);
}

TEST_CASE("handle: another engine's first sequence is unknown here") {
  engine_type a(shape, capacity);
  engine_type b(shape, capacity);
  const sequence of_a = a.open();
  const sequence of_b = b.open();
  b.append_count(of_b, 0, 5);
  CHECK_THROWS_AS(b.reclaim(of_a), unknown_sequence);
  CHECK_THROWS_AS(a.tokens(of_b, 0), unknown_sequence);
  CHECK(b.tokens(of_b, 0) == 5);
}

TEST_CASE("handle: it goes along when its engine moves") {
  engine_type a(shape, capacity);
  const sequence seq = a.open();
  a.append_count(seq, 0, 7);
  engine_type b(std::move(a));
  CHECK(b.tokens(seq, 0) == 7);
}

TEST_CASE("handle: reclaimed ones stay unknown when their slot is used again, lowest slot first") {
  engine_type e(shape, capacity);
  std::vector<sequence> all;
  for (int i = 0; i < 50; ++i) {
    all.push_back(e.open());
    CHECK(all.back().slot == static_cast<std::uint32_t>(i));
  }
  for (const int i : {30, 4, 17}) {
    e.reclaim(all[static_cast<std::size_t>(i)]);
    CHECK_THROWS_AS(e.reclaim(all[static_cast<std::size_t>(i)]), unknown_sequence);
  }
  for (const std::uint32_t slot : {4u, 17u, 30u, 50u}) {
    CHECK(e.open().slot == slot);
  }
  for (const int i : {30, 4, 17}) {
    CHECK_THROWS_AS(e.tokens(all[static_cast<std::size_t>(i)], 0), unknown_sequence);
  }
}

}  // namespace instinfer::test_sequence_handles
