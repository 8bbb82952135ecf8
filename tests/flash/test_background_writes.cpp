// Background writes: an append costs its link, and the next attend may wait.

#include <doctest/doctest.h>

#include "instinfer/flash/background_writes.hpp"
#include "instinfer/flash/engine.hpp"
#include "instinfer/flash/ftl_store.hpp"
#include "tests/support/whole_drive.hpp"

namespace instinfer::test_background_writes {

using namespace test;

namespace {

using format = drive_format;

}  // namespace

// Reads of a second phase come when programs have begun on idle dies. Those of a first phase come
// first.
TEST_CASE_TEMPLATE("background writes: an append costs its link only, and the next attend may wait",
                   D, insta, insta_sparf) {
  constexpr bool two_phases = std::is_same_v<D, insta_sparf>;
  const auto run = [](const flash::suspension& suspend, bool cache_read = false) {
    flash::engine<D, format, flash::random_selection, flash::data_out_first, clean_store,
                  flash::background_writes>
        engine(one_head, drive_capacity, {}, {}, small_drive, {},
               {.cache_read = cache_read, .suspend = suspend});
    const sequence seq = engine.open();
    engine.append_count(seq, 0, 16 * 128);
    attend(engine, {&seq, 1});
    const flash::receipt quiet = attend(engine, {&seq, 1});
    CHECK(quiet.delay_ns == 0);
    CHECK(quiet.background_ns == 0);
    const sequence other = engine.open();
    const flash::receipt written = engine.append_count(other, 0, 16 * 20);
    CHECK(written.traffic.pages_written >= 40);
    CHECK(written.total_ns() == written.link_ns);
    const flash::receipt beside = attend(engine, {&seq, 1});
    CHECK(beside.traffic == quiet.traffic);
    CHECK(beside.attention_ns == doctest::Approx(quiet.attention_ns + beside.delay_ns));
    CHECK(beside.background_ns > 450'000);
    CHECK(attend(engine, {&seq, 1}).delay_ns == 0);  // once
    return beside.delay_ns;
  };
  const double waits = run({});
  const double cached = run({}, true);
  const double suspends = run({.of_programs = true, .program_ps = 20 * flash::ps_per_us});
  if (two_phases) {
    CHECK(waits > 100'000);
    CHECK(cached > 100'000);
    CHECK(suspends < 0.5 * waits);
  } else {
    CHECK(waits == 0);
  }
}

TEST_CASE("background writes: host routes, too") {
  flash::engine<flexgen, format, flash::random_selection, flash::data_out_first, store::ledger,
                flash::background_writes>
      engine(few_heads, {.bytes = 64 << 20, .context_tokens = 2048});
  const sequence seq = engine.open();
  engine.append_count(seq, 0, 1000);
  CHECK(attend(engine, {&seq, 1}).background_ns > 450'000);
  CHECK(attend(engine, {&seq, 1}).background_ns == 0);
}

}  // namespace instinfer::test_background_writes
