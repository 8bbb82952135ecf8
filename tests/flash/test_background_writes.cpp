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

// Programs begin while the append crosses the link, so reads of any phase wait for them.
TEST_CASE_TEMPLATE("background writes: an append costs its link only, and the next attend may wait",
                   D, insta, insta_sparf) {
  const auto run = [](const flash::suspension& suspend, bool cache_read = false) {
    flash::engine<D, format, flash::random_selection, flash::data_out_first, clean_store,
                  flash::background_writes>
        engine(one_head, drive_capacity, {}, {}, small_drive, {},
               {.cache_read = cache_read, .suspend = suspend});
    const sequence seq = engine.open();
    engine.append_count(seq, 0, 16 * 128);
    attend(engine, {&seq, 1});
    engine.wait(50e6);
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
    CHECK(beside.backlog == engine.backlog());
    engine.wait(50e6);  // 111 programs of 450 us one after the other
    CHECK(attend(engine, {&seq, 1}).delay_ns == 0);
    CHECK(engine.backlog() == 0);
    return beside.delay_ns;
  };
  const double waits = run({});
  const double cached = run({}, true);
  const double suspends = run({.of_programs = true, .program_ps = 20 * flash::ps_per_us});
  CHECK(waits > 100'000);
  CHECK(cached > 100'000);
  CHECK(suspends < 0.5 * waits);
}

TEST_CASE("untimed: calls do all but take time, and leave nothing for the background") {
  using timed = flash::engine<flexgen, format, flash::random_selection, flash::data_out_first,
                              store::ledger, flash::background_writes>;
  const store::capacity capacity{.bytes = 64 << 20, .context_tokens = 2048};
  timed engine(few_heads, capacity), other(few_heads, capacity);
  const sequence seq = engine.open();
  const sequence same = other.open();
  const flash::receipt written = engine.untimed([&] { return engine.append_count(seq, 0, 1000); });
  CHECK(written.total_ns() == 0);
  CHECK(written.traffic == other.append_count(same, 0, 1000).traffic);
  CHECK(engine.backlog() == 0);
  CHECK(other.backlog() > 0);
  other.wait(10e6);
  const flash::receipt read = engine.untimed([&] { return attend(engine, {&seq, 1}); });
  CHECK(read.total_ns() == 0);
  const flash::receipt timed_read = attend(other, {&same, 1});
  CHECK(read.traffic == timed_read.traffic);
  CHECK_THROWS_AS(engine.untimed([&] { engine.append_count(sequence{}, 0, 1); }), unknown_sequence);
  CHECK(attend(engine, {&seq, 1}).total_ns() == timed_read.total_ns());  // times are back
}

TEST_CASE("background writes: host routes, too") {
  flash::engine<flexgen, format, flash::random_selection, flash::data_out_first, store::ledger,
                flash::background_writes>
      engine(few_heads, {.bytes = 64 << 20, .context_tokens = 2048});
  const sequence seq = engine.open();
  engine.append_count(seq, 0, 1000);
  CHECK(engine.backlog() > 0);
  engine.wait(10e6);
  attend(engine, {&seq, 1});
  CHECK(engine.backlog() == 0);
  CHECK(attend(engine, {&seq, 1}).background_ns == 0);
}

namespace {

// One channel with one die of one plane, and room for what the tests ask.
constexpr flash::drive_spec one_die = [] {
  flash::drive_spec drive = flash::instcsd;
  drive.geometry = {.blocks = 64, .pages = 64};
  drive.timing.program_ps = 400 * flash::ps_per_us;
  return drive;
}();

// An attend whose reads are all released at 0.
struct released_at_0 {
  template <class See>
  void each_release(const flash::attend_work& work, const flash::call_times&, See&& see) const {
    for (std::uint32_t l = 0; l < work.loads.size(); ++l) {
      see(l, 0);
    }
  }
};

struct one_die_load {
  flash::background_writes<flash::data_out_first> writes{one_die, {}};
  flash::attend_work work;
  std::vector<flash::location> pages;
  std::int32_t row = 0;

  void program(int count) {
    flash::ftl_operations operations;
    for (int i = 0; i < count; ++i) {
      operations.programs.push_back({.block = row / 64, .page = row++ % 64});
    }
    flash::call_times unused;
    writes.charge(operations, unused);
  }
  // Reads `count` pages, 48.2 us each.
  flash::call_times attend(std::uint32_t count) {
    work.clear();
    pages.clear();
    for (std::uint32_t i = 0; i < count; ++i) {
      work.pages.push_back({.page = page_id{i}, .elements = 1});
      pages.push_back({.block = 63, .page = static_cast<std::int32_t>(i % 64)});
    }
    work.sets.push_back({.pages = count});
    work.loads.push_back({.last_page = count, .sets = 1});
    flash::call_times done;
    done.attention_ns = read_us * 1e3 * count;
    writes.run_beside(released_at_0{}, work, pages, done);
    return done;
  }

  static constexpr double read_us = 0.29 + 45.02 + 4096 / 1.4e3;
  static constexpr double program_us = 0.361 + 4096 / 1.4e3 + 400;
};

}  // namespace

TEST_CASE("background writes: what an attend does not finish meets the next one, by hand") {
  one_die_load drive;
  drive.program(3);
  // Reads first, as both come at 0. The first program begins after the last read, so none is done.
  flash::call_times done = drive.attend(10);
  CHECK(done.delay_ns == doctest::Approx(0));
  CHECK(done.background_ns ==
        doctest::Approx((10 * drive.read_us + 3 * drive.program_us) * 1e3).epsilon(1e-6));
  CHECK(done.backlog == 3);
  // 1000 us later two programs are done, and the third works for 193 us.
  drive.writes.pass(1000e3);
  done = drive.attend(10);
  const double left_us = 3 * drive.program_us - 1000;
  CHECK(done.delay_ns == doctest::Approx(left_us * 1e3).epsilon(1e-3));
  CHECK(done.backlog == 0);
  // Nothing is left, and nothing waits.
  done = drive.attend(10);
  CHECK(done.delay_ns == 0);
  CHECK(done.background_ns == 0);
}

TEST_CASE("background writes: a program that works at the end of an attend goes on in the next") {
  one_die_load drive;
  drive.program(1);
  drive.writes.pass(300e3);  // of 403 us; then the reads come and wait for the rest
  flash::call_times done = drive.attend(1);
  CHECK(done.delay_ns == doctest::Approx((drive.program_us - 300) * 1e3).epsilon(1e-3));
  // Two programs come while an attend of one read runs. After the read the first one begins; 100 us
  // later the next attend waits for its 303 us, and 100 us after that one for the second program.
  drive.program(2);
  CHECK(drive.attend(1).delay_ns == doctest::Approx(0));
  drive.writes.pass(100e3);
  done = drive.attend(1);
  CHECK(done.delay_ns == doctest::Approx((drive.program_us - 100) * 1e3).epsilon(1e-3));
  drive.writes.pass(100e3);
  done = drive.attend(1);
  CHECK(done.delay_ns == doctest::Approx((drive.program_us - 100) * 1e3).epsilon(1e-3));
  CHECK(done.backlog == 0);
}

TEST_CASE("background writes: no more is programmed than the array can, however attends come") {
  for (const double gap_us : {0.0, 37.0, 500.0}) {
    CAPTURE(gap_us);
    one_die_load drive;
    drive.program(40);
    double us = 0;
    int attends = 0;
    while (drive.writes.backlog() > 0 && attends < 2'000) {
      us += drive.attend(2).attention_ns * 1e-3;
      drive.writes.pass(gap_us * 1e3);
      us += gap_us;
      ++attends;
    }
    if (gap_us == 0) {
      CHECK(attends == 2'000);  // reads first, without a gap: writes starve
      continue;
    }
    // The die has worked for all of them: programs, and two reads an attend.
    const double busy_us = 40 * drive.program_us + attends * 2 * drive.read_us;
    CHECK(us >= busy_us - 500);  // the last gap may be longer than what was left to do
    CHECK(us <= busy_us + 500 + gap_us);
  }
}

}  // namespace instinfer::test_background_writes
