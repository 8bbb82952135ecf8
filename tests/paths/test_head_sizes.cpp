// Head sizes that are no multiple of a vector or of a codec's group, and the largest ones: rows are
// stored with zeros after them, and callers see the true sizes.

#include <doctest/doctest.h>

#include <sstream>

#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/flash/engine.hpp"
#include "suite.hpp"
#include "tests/support/plain_attention.hpp"

using namespace instinfer;
using test::largest_difference;
using test::random_cache;

namespace {

// The outputs of the newest `queries` tokens, all with the same q, are plain attention over the
// tokens that each sees.
template <class Engine>
void check_plain(int tokens, int group, int queries, double bound) {
  using format = typename Engine::format;
  CAPTURE(tokens);
  CAPTURE(group);
  const random_cache<format> data(61, tokens, 2 * group, 2);
  Engine engine({.layers = 1, .q_heads = data.q_heads, .kv_heads = 2}, test::small_capacity);
  const sequence seq = engine.open();
  for (int t = 0; t < tokens; t += 7) {  // in pieces, so that rows pass the group buffer
    const int last = std::min(tokens, t + 7);
    engine.append(seq, 0, data.k_tokens(t, last), data.v_tokens(t, last));
  }
  std::vector<float> q;
  for (int i = 0; i < queries; ++i) {
    q.insert(q.end(), data.q.begin(), data.q.end());
  }
  const auto row = static_cast<std::size_t>(data.q_heads * format::v_dim);
  std::vector<float> out(row * static_cast<std::size_t>(queries), -1.0f);
  engine.attend(seq, 0, q, out);
  const test::plain_attention plain{2, data.q_heads, format::k_dim, format::v_dim};
  for (int i = 0; i < queries; ++i) {
    const auto seen = plain(std::span<const typename format::element>(data.k),
                            std::span<const typename format::element>(data.v),
                            std::span<const float>(data.q), tokens - (queries - 1 - i));
    CHECK(largest_difference(std::span(out).subspan(static_cast<std::size_t>(i) * row, row), seen) <
          bound);
  }
}

template <class Format>
void check_size(double bound) {
  for (const int tokens : {1, 5, 100, 333}) {
    for (const int group : {1, 3}) {
      check_plain<cpu::engine<insta, Format>>(tokens, group, 1, bound);
      check_plain<reference::engine<insta, Format>>(tokens, group, 1, bound);
    }
  }
  check_plain<cpu::engine<insta, Format>>(40, 9, 3, bound);
}

}  // namespace

static_assert(kv_format<fp16, 10, 6>::padded::k_dim == 16);
static_assert(kv_format<fp16, 10, 6>::padded::v_dim == 16);
static_assert(kv_format<fp16, 10, 6>::appended_bytes == 32);
static_assert(kv_format<int4_groups<>, 80>::padded::k_dim == 128);
static_assert(std::is_same_v<kv_format<bf16, 576, 512>::padded, kv_format<bf16, 576, 512>>);
static_assert(!kv_format<fp16, 112>::is_padded);

TEST_CASE("head sizes of 10 and 6 dims") { check_size<kv_format<fp16, 10, 6>>(1e-5); }
TEST_CASE("head sizes of 576 and 512 dims") { check_size<kv_format<bf16, 576, 512>>(1e-5); }
// The largest error of a value is half a step, and V is below 5: codec/int4_groups.hpp.
TEST_CASE("4-bit groups with 80 dims") { check_size<kv_format<int4_groups<>, 80>>(0.6); }

TEST_CASE("a sparse method chooses among the true dims") {
  using format = kv_format<fp16, 10, 6>;
  for (const int tokens : {40, 300}) {
    test::check_against_transcription<cpu::engine<insta_sparf, format>, format>(62, tokens, 2, 3);
    test::check_against_transcription<reference::engine<insta_sparf, format>, format>(63, tokens, 2,
                                                                                      3);
  }
}

TEST_CASE("rows of wrong size are refused with the true size") {
  cpu::engine<insta, kv_format<fp16, 10, 6>> engine({.layers = 1, .q_heads = 1, .kv_heads = 1},
                                                    test::small_capacity);
  const sequence seq = engine.open();
  const std::vector<fp16> rows(16);
  CHECK_THROWS_WITH_AS(
      engine.append(seq, 0, rows, rows),
      "append: k must be [new_tokens, 1, 10] and v [new_tokens, 1, 6], got 16 and 16 elements",
      bad_argument);
  engine.append(seq, 0, std::span(rows).first(10), std::span(rows).first(6));
  std::vector<float> out(6);
  CHECK_THROWS_AS(engine.attend(seq, 0, std::vector<float>(16), out), bad_argument);
}

TEST_CASE("bytes of the link are those of the true sizes") {
  using format = kv_format<fp16, 10, 6>;
  flash::engine<insta, format> drive({.layers = 1, .q_heads = 2, .kv_heads = 1},
                                     test::small_capacity);
  const sequence seq = drive.open();
  CHECK(drive.append_count(seq, 0, 100).traffic.link_bytes == 100 * 16 * 2);
  std::vector<float> out(12);
  CHECK(drive.attend(seq, 0, std::vector<float>(20), out).traffic.link_bytes == (20 + 12) * 2);
}

TEST_CASE("a file of padded rows is one of its true sizes only") {
  using format = kv_format<fp16, 10, 6>;
  const random_cache<format> data(64, 50, 2, 1);
  const model_shape shape{.layers = 1, .q_heads = 2, .kv_heads = 1};
  cpu::engine<insta, format> engine(shape, test::small_capacity);
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  std::stringstream file;
  engine.save(seq, file);
  cpu::engine<insta, kv_format<fp16, 12, 6>> other(shape, test::small_capacity);
  CHECK_THROWS_AS(other.load(other.open(), file), bad_file);
  file.seekg(0);
  cpu::engine<insta, format> same(shape, test::small_capacity);
  const sequence loaded = same.open();
  same.load(loaded, file);
  std::vector<float> out(12), again(12);
  engine.attend(seq, 0, data.q, out);
  same.attend(loaded, 0, data.q, again);
  CHECK(out == again);
}
