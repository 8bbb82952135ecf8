// Every policy on every layout, head sizes, parallel policies, and folding in parts: what the
// designs leave out.

#include <thread>

#include "instinfer/layout/dim_indexed.hpp"
#include "odd_layouts.hpp"
#include "suite.hpp"

using namespace instinfer;
using test::check_against_transcription;
using test::check_plan_is_access;

namespace {

template <class Policy, class Layout, class Format>
void check_cell() {
  using in_drive = design<Policy, Layout, flash::instcsd, transfer::in_storage>;
  for (const int tokens : {1, 40, 700}) {
    check_against_transcription<reference::engine<in_drive, Format>, Format>(21, tokens, 2, 3);
    check_against_transcription<cpu::engine<in_drive, Format>, Format>(22, tokens, 2, 3);
    check_plan_is_access<in_drive, Format, reference::path>(tokens);
    check_plan_is_access<in_drive, Format, cpu::path>(tokens);
  }
}

template <class Policy>
void check_layouts() {
  using format = kv_format<fp16, 64>;
  check_cell<Policy, layout::token_indexed<>, format>();
  check_cell<Policy, layout::dim_indexed<>, format>();
  check_cell<Policy, layout::dual<>, format>();
  check_cell<Policy, test::scattered, format>();
}

// Folds random thirds of the tokens, one after the other.
struct dense_in_parts {
  unsigned seed = 1;
  using summaries = attention::summary_list<>;

  template <attention::AttentionMachine M>
  void operator()(M& m, const typename M::query& q) const {
    std::mt19937 random(seed);
    std::vector<index_set> parts(3);  // some may stay empty
    m.all_tokens(q).for_each([&](std::uint32_t t) { parts[random() % parts.size()].add(t); });
    std::ranges::shuffle(parts, random);
    for (const index_set& part : parts) {
      m.fold(q, part);
    }
  }
};

}  // namespace

TEST_CASE("dense on every layout") { check_layouts<attention::dense>(); }
TEST_CASE("sparq on every layout") { check_layouts<attention::sparq>(); }
TEST_CASE("sparf on every layout") { check_layouts<attention::sparf>(); }

TEST_CASE_TEMPLATE("every head size, also with V unlike K", F, kv_format<fp16, 64>,
                   kv_format<fp16, 80>, kv_format<fp16, 96>, kv_format<bf16, 128>,
                   kv_format<fp16, 192, 128>, kv_format<fp32, 256>, kv_format<fp16, 64, 192>) {
  check_against_transcription<cpu::engine<insta_sparf, F>, F>(31, 500, 1, 2);
  check_against_transcription<reference::engine<insta_sparf, F>, F>(32, 200, 1, 2);
  test::check_every_length<cpu::engine<insta_sparf, F>, F>(33);
  // All kept: every row, as dense attention folds them.
  test::check_every_length<cpu::engine<insta_sparf, F>, F>(
      35, test::keeping<attention::sparf>(1.0, 1.0));
}

TEST_CASE("the results do not depend on the tuning") {
  using format = kv_format<fp16, 64>;
  constexpr cpu::tuning other{
      .one_head = {.k = {.bytes = 700}, .v = {.bytes = 5000}, .to = cpu::cache_level::l1},
      .group = {.k = {.rows = 70}, .v = {.rows = 3}, .to = cpu::cache_level::l3},
      .scattered = cpu::cache_level::none,
      .block_rows = 32,
      .heads = std::min(2u, cpu::heads_at_once)};
  test::check_every_length<cpu::engine<insta, format, other>, format>(37);
}

TEST_CASE("pages may be folded in any order and in parts") {
  using design_in_parts =
      design<dense_in_parts, layout::token_indexed<>, flash::instcsd, transfer::in_storage>;
  using format = kv_format<fp16, 64>;
  const test::random_cache<format> data(41, 900, 6, 2);
  const std::vector<float> whole = test::attend_once<cpu::engine<insta, format>>(data);
  for (unsigned seed = 1; seed <= 10; ++seed) {
    const std::vector<float> parts =
        test::attend_once<cpu::engine<design_in_parts, format>>(data, {.seed = seed});
    const std::vector<float> parts64 =
        test::attend_once<reference::engine<design_in_parts, format>>(data, {.seed = seed});
    for (std::size_t i = 0; i < whole.size(); ++i) {
      CHECK(parts[i] ==
            doctest::Approx(whole[i]).epsilon(test::tolerance<cpu::path>(900)).scale(1.0));
      CHECK(parts64[i] ==
            doctest::Approx(whole[i]).epsilon(test::tolerance<cpu::path>(900)).scale(1.0));
    }
  }
}

TEST_CASE("the parallel policies give the same bits") {
  using format = kv_format<fp16, 64>;
  const test::random_cache<format> data(51, 800, 24, 8);
  using engine_type = cpu::engine<insta_sparf, format>;
  engine_type engine({.layers = 1, .q_heads = 24, .kv_heads = 8}, {});
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  std::vector<float> serial(24 * 64);
  std::vector<float> other(24 * 64);
  engine_type::scratch scratch;
  const receipt alone = engine.attend(seq, 0, data.q, serial);

  const parallel::on_pool threads(3, [](std::size_t count, auto&& task) {
    std::vector<std::jthread> pool;
    for (std::size_t w = 0; w < 3; ++w) {
      pool.emplace_back([&, w] {
        for (std::size_t i = w; i < count; i += 3) {
          task(i, w);
        }
      });
    }
  });
  CHECK(engine.attend(seq, 0, data.q, other, scratch, threads).traffic == alone.traffic);
  CHECK(serial == other);
#if defined(_OPENMP)
  std::ranges::fill(other, 0.0f);
  CHECK(engine.attend(seq, 0, data.q, other, scratch, parallel::openmp{2}).traffic ==
        alone.traffic);
  CHECK(serial == other);
#endif
}

TEST_CASE("V near the largest number, tile by tile") {
  using format = kv_format<fp32, 64>;
  using scattered = design<attention::dense, test::scattered, flash::instcsd, transfer::in_storage>;
  test::check_large_values<cpu::engine<scattered, format>, format>();
}

TEST_CASE("an error in a worker reaches the caller, and the output is untouched") {
  using format = kv_format<fp16, 64>;
  const test::random_cache<format> data(61, 20, 2, 2);
  cpu::engine<insta_sparf, format> engine({.layers = 1, .q_heads = 2, .kv_heads = 2}, {},
                                          {.keep_dims = 0.5, .keep_tokens = budget::exactly(21)});
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  std::vector<float> out(2 * 64, 7.0f);
  try {
    engine.attend(seq, 0, data.q, out);
    FAIL("k > tokens was accepted");
  } catch (const bad_argument& e) {
    CHECK(std::string(e.what()).find(
              "keep_tokens: exactly 21 were asked for, but there are only 20") == 0);
  }
  CHECK(out == std::vector<float>(2 * 64, 7.0f));
}
