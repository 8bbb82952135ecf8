// flash::engine on a translation layer: pages are read where they lie, moves and erases are
// charged.

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include "instinfer/flash/engine.hpp"
#include "instinfer/flash/ftl_store.hpp"
#include "instinfer/ssd/ftl/reliability.hpp"
#include "tests/support/whole_drive.hpp"

namespace instinfer::test_engine_on_ftl {

using namespace test;

namespace {

using format = drive_format;

}  // namespace

TEST_CASE("drive on an FTL: sequences that go as a whole are never moved, and erases are charged") {
  engine_on<clean_store> engine(one_head, drive_capacity, {}, {}, small_drive);
  flash::engine<insta, format> plain(one_head, drive_capacity, {}, {}, small_drive);
  double write_ns = 0;
  double erase_ns = 0;
  for (int round = 0; round < 12; ++round) {
    CAPTURE(round);
    const sequence seq = engine.open();
    const sequence same = plain.open();
    const flash::receipt written = engine.append_count(seq, 0, 16 * 128);  // 256 pages
    CHECK(written.traffic == plain.append_count(same, 0, 16 * 128).traffic);
    CHECK(written.flash_write_ns > 450'000);
    CHECK(written.moving_ns == 0);
    write_ns += written.flash_write_ns;
    erase_ns += written.erase_ns;
    const flash::receipt done = attend(engine, {&seq, 1});
    CHECK(done.traffic == attend(plain, {&same, 1}).traffic);
    CHECK(done.attention_ns > 0);
    engine.reclaim(seq);
    plain.reclaim(same);
    if (round % 3 == 2) {
      const flash::receipt idle = engine.idle();
      CHECK(idle.erase_ns > 3'500'000);
      CHECK(idle.flash_write_ns + idle.moving_ns == 0);
      erase_ns += idle.erase_ns;
      CHECK(engine.idle().total_ns() == 0);  // nothing left, nothing charged twice
    }
  }
  const auto& ftl = engine.pages().translation();
  CHECK(ftl.counters().write_amplification() == 1.0);
  CHECK(ftl.counters().host_pages == 12 * 256);
  CHECK(ftl.wear().most > 0);
  // Each batch of erases takes at least one block's time, and the buses at least the pages'.
  CHECK(erase_ns > 3.5e6);
  CHECK(write_ns > 12 * 256 / 8 * 450'000.0);
}

TEST_CASE("drive on an FTL: a cut page is read, its number released, and another one programmed") {
  engine_on<clean_store> engine(one_head, drive_capacity, {}, {}, small_drive);
  flash::engine<insta, format> plain(one_head, drive_capacity, {}, {}, small_drive);
  const std::uint32_t tile = engine.inner().cache().tiles().v_by_token.tokens;
  const auto play = [&](auto& on) {
    const sequence seq = on.open();
    on.append_count(seq, 0, tile * 100);
    const flash::receipt cut = on.truncate(seq, tile * 90 + 3);
    CHECK(cut.traffic.pages_read == 2);  // K and V
    CHECK(cut.traffic.array_bytes == 2 * 4096);
    CHECK(cut.traffic.pages_written == 0);
    CHECK(cut.moving_ns > 0);  // one page read, and its transfer: they lie on two channels
    CHECK(cut.total_ns() == cut.moving_ns);
    CHECK(on.truncate(seq, tile * 90 + 1).total_ns() == 0);  // in the group buffer
    CHECK(on.truncate(seq, tile * 80).total_ns() == 0);      // between tiles
    CHECK(on.positions(seq, 0) == tile * 80);
    return std::pair{seq, cut.moving_ns};
  };
  const auto [seq, ns] = play(engine);
  CHECK(play(plain).second == ns);
  const auto& ftl = engine.pages().translation();
  CHECK(ftl.live_pages() == 2 * 80);
  CHECK(ftl.counters().host_pages == 2 * 100);
  engine.append_count(seq, 0, tile);
  engine.truncate(seq, tile * 80 + 5);
  engine.append_count(seq, 0, tile - 5);  // the cut tile is full again: programmed a second time
  CHECK(ftl.live_pages() == 2 * 81);
  CHECK(ftl.counters().host_pages == 2 * 102);
}

TEST_CASE("drive on an FTL: shared pages are programmed once, and read by each owner") {
  engine_on<clean_store> engine(one_head, drive_capacity, {}, {}, small_drive);
  const sequence prompt = engine.open();
  engine.append_count(prompt, 0, 16 * 100);
  const auto& ftl = engine.pages().translation();
  std::vector<sequence> all{prompt};
  for (int i = 0; i < 20; ++i) {
    all.push_back(engine.fork(prompt));
  }
  CHECK(ftl.live_pages() == 2 * 100);
  CHECK(ftl.counters().host_pages == 2 * 100);
  const flash::receipt alone = attend(engine, {&prompt, 1});
  const flash::receipt together = attend(engine, all);
  CHECK(together.traffic.pages_read == 21 * alone.traffic.pages_read);
  engine.reclaim(prompt);
  all.erase(all.begin());
  CHECK(attend(engine, {&all[4], 1}).traffic == alone.traffic);
  for (const sequence seq : all) {
    CHECK(ftl.live_pages() == 2 * 100);
    engine.reclaim(seq);
  }
  CHECK(ftl.live_pages() == 0);
  CHECK(ftl.counters().host_pages == 2 * 100);
}

TEST_CASE("drive on an FTL: pages are read where they lie") {
  struct seen {
    std::map<std::string, int> reads;
    void add(const std::string& group, const std::string& row, const std::string& name, double,
             double) {
      reads[group + " " + row] += name == "array read" ? 1 : 0;
    }
  };
  engine_on<clean_store> engine(one_head, drive_capacity, {}, {}, small_drive);
  const sequence seq = engine.open();
  engine.append_count(seq, 0, 16 * 100);
  std::map<std::string, int> expected;
  const auto head = engine.inner().cache().at(seq, 0).head(0);
  for (const stream s : {stream::k_by_token, stream::v_by_token}) {
    for (const page_id page : head.of(s).table) {
      const flash::location at = engine.pages().locate(page);
      ++expected["channel " + std::to_string(at.channel) + " chip " + std::to_string(at.chip) +
                 " die " + std::to_string(at.die) + " plane " + std::to_string(at.plane)];
    }
  }
  const std::vector<float> q(128, 1.0f);
  std::vector<float> out(128);
  seen trace;
  engine.attend(seq, 0, q, out, &trace);
  std::erase_if(trace.reads, [](const auto& entry) { return entry.second == 0; });
  CHECK(trace.reads == expected);
  CHECK(expected.size() == 8);  // all planes
  // Reads were counted against their blocks: 8 pages of each, once.
  flash::receipt done = engine.refresh(flash::refresh_limits{.reads = 9});
  CHECK(done.moving_ns == 0);
  engine.attend(seq, 0, q, out);
  done = engine.refresh(flash::refresh_limits{.reads = 9});
  CHECK(done.moving_ns > 45'000);
  CHECK(done.flash_write_ns > 450'000);
  CHECK(done.erase_ns > 3'500'000);
  CHECK(engine.pages().translation().counters().write_amplification() > 1.0);
}

TEST_CASE("drive on an FTL: a pattern that breaks the rule pays for moves") {
  engine_on<greedy_store> engine(one_head, drive_capacity, {}, {}, small_drive);
  const sequence kept = engine.open();
  double moving_ns = 0;
  for (int round = 0; round < 60; ++round) {
    const sequence gone = engine.open();
    for (int i = 0; i < 20; ++i) {  // pages of both in the same blocks
      moving_ns += engine.append_count(gone, 0, 16 * 4).moving_ns;
      if (round < 12) {
        moving_ns += engine.append_count(kept, 0, 16).moving_ns;
      }
    }
    engine.reclaim(gone);
  }
  CHECK(moving_ns > 0);
  CHECK(engine.pages().translation().counters().write_amplification() > 1.0);
}

}  // namespace instinfer::test_engine_on_ftl
