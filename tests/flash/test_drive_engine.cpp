// flash::engine on the whole drive: the paper's read rate, the breakdown by unit, the options, and what a translation layer
// and background writes do to its times.

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

#include "instinfer/flash/background_writes.hpp"
#include "instinfer/flash/engine.hpp"
#include "instinfer/flash/ftl_store.hpp"
#include "instinfer/ssd/ftl/reliability.hpp"

using namespace instinfer;

namespace {

using format = kv_format<fp16, 128>;  // 16 tokens a page of 4 KiB

template <class Engine>
flash::receipt attend(Engine& engine, std::span<const sequence> all) {
  const model_shape& shape = engine.inner().cache().shape();
  const std::vector<float> q(static_cast<std::size_t>(shape.q_heads * 128), 1.0f);
  std::vector<float> out(q.size());
  std::vector<typename Engine::request> batch;
  for (const sequence seq : all) {
    batch.push_back({seq, q, out});
  }
  return engine.attend_batch(0, batch);
}

// `batch` sequences of `tokens` each on a drive of its own.
template <class D, class... Rest>
flash::receipt one_step(const model_shape& shape, int batch, std::uint64_t tokens,
                        const flash::drive_spec& drive = D::drive,
                        const flash::drive_rules& rules = {}) {
  flash::engine<D, format, flash::random_selection, Rest...> engine(
      shape, {.bytes = std::uint64_t{8} << 30, .context_tokens = 2048}, {}, {}, drive, {}, rules);
  std::vector<sequence> all;
  for (int i = 0; i < batch; ++i) {
    all.push_back(engine.open());
    engine.append_count(all.back(), 0, tokens);
  }
  return attend(engine, all);
}

double read_gb_per_s(const flash::receipt& done) {
  return static_cast<double>(done.traffic.array_bytes) / done.attention_ns;
}

constexpr model_shape opt_13b{.layers = 1, .q_heads = 40, .kv_heads = 40};
constexpr model_shape few_heads{.layers = 1, .q_heads = 4, .kv_heads = 4};

// 2 channels x 2 chips x 2 planes x 24 blocks x 8 pages: 1,536 pages.
constexpr flash::geometry small{
    .channels = 2, .chips = 2, .dies = 1, .planes = 2, .blocks = 24, .pages = 8};
constexpr flash::drive_spec small_drive = [] {
  flash::drive_spec drive = flash::instcsd;
  drive.geometry = small;
  return drive;
}();
const store::capacity small_capacity{.bytes = 2 * 700 * 4096, .context_tokens = 512};
constexpr model_shape one_head{.layers = 1, .q_heads = 1, .kv_heads = 1};

using clean_store =
    flash::ftl_store<small, flash::kv_blocks{.frontiers = 4, .erase_below_blocks = 4}>;
using greedy_store = flash::ftl_store<small, flash::greedy_pages{}>;

template <class Store, template <class> class Writes = flash::foreground_writes>
using engine_on =
    flash::engine<insta, format, flash::random_selection, flash::data_out_first, Store, Writes>;

}  // namespace

// InstInfer Table III: 7.66 GB/s of decode reads at batch 64. Half way through 1024 + 1024 tokens.
TEST_CASE("drive: OPT-13B at batch 64 reads at the paper's rate, within 5 %") {
  const flash::receipt dense = one_step<insta>(opt_13b, 64, 1536);
  CHECK(dense.traffic.pages_read == 64u * 40 * 2 * 1536 / 16);
  CHECK(read_gb_per_s(dense) > 0.95 * 7.66);
  CHECK(read_gb_per_s(dense) < 1.05 * 7.66);
  // All units but the flash have time to spare.
  for (const flash::unit u : {flash::unit::logit, flash::unit::attend, flash::unit::filter}) {
    CHECK(dense.units[u] < 0.6 * dense.attention_ns);
  }
  const flash::receipt sparse = one_step<insta_sparf>(opt_13b, 64, 1536);
  CHECK(dense.attention_ns / sparse.attention_ns > 1.5);

  // Table I's two softmax units alone would hold the flash up: a score comes with 512 B of K and V.
  flash::drive_spec table_1 = flash::instcsd;
  table_1.units.softmax_units = 2;
  const double scores_per_s = 2 * 14.2e6 / 5;
  const flash::receipt slow = one_step<insta>(opt_13b, 4, 1536, table_1);
  CHECK(read_gb_per_s(slow) < scores_per_s * 512 * 1e-9);
  CHECK(read_gb_per_s(slow) > 0.98 * scores_per_s * 512 * 1e-9);
}

TEST_CASE("drive: the last attend can be timed with other units") {
  flash::drive_spec drive = flash::instcsd;
  drive.units.softmax_units = 2;
  flash::engine<insta_sparf, format> engine(few_heads, {}, {}, {}, drive);
  flash::engine<insta_sparf, format> paper(few_heads, {});
  const sequence seq = engine.open();
  CHECK(paper.open() == seq);
  engine.append_count(seq, 0, 3000);
  paper.append_count(seq, 0, 3000);
  const flash::receipt slow = attend(engine, {&seq, 1});
  const flash::call_times again = engine.last_attend_with(flash::instcsd.units);
  CHECK(again.attention_ns < slow.attention_ns);
  CHECK(again.attention_ns == attend(paper, {&seq, 1}).attention_ns);
  CHECK(engine.last_attend_with(drive.units).attention_ns == slow.attention_ns);
}

TEST_CASE("drive: the breakdown is what the units did") {
  const flash::receipt done = one_step<insta_sparf>(few_heads, 3, 2048);
  REQUIRE(done.phases.size() == 2);
  using flash::unit;
  CHECK(done.units[unit::logit_0] ==
        doctest::Approx(done.phases[0].gemv + done.phases[0].softmax));
  CHECK(done.units[unit::logit] + done.units[unit::attend] ==
        doctest::Approx(done.phases[1].gemv + done.phases[1].softmax));
  CHECK(done.units[unit::attend] ==
        doctest::Approx(done.phases[1].gemv / 2));  // as many FLOP as q.K
  CHECK(done.units[unit::top_k] ==
        doctest::Approx(done.phases[0].top_k + done.phases[1].top_k));
  CHECK(done.units[unit::flash] <= done.attention_ns);
  CHECK(done.units[unit::flash] > 0.9 * done.attention_ns);
  double shares = 0;
  for (std::size_t u = 0; u < flash::unit_count; ++u) {
    CHECK(done.units.share(static_cast<unit>(u)) >= 0);
    shares += done.units.share(static_cast<unit>(u));
  }
  CHECK(shares == doctest::Approx(1.0));
  CHECK(flash::unit_breakdown{}.share(unit::flash) == 0);
  // Dense attention has no first pass, and nothing to rank.
  const flash::receipt dense = one_step<insta>(few_heads, 3, 2048);
  CHECK(dense.units[unit::logit_0] == 0);
  CHECK(dense.units[unit::top_k] == 0);
}

TEST_CASE("drive: heads interleave, and a head's own phases do not overlap") {
  const flash::receipt one = one_step<insta_sparf>(one_head, 1, 2048);
  REQUIRE(one.phases.size() == 2);
  CHECK(one.phases[1].begin == doctest::Approx(one.phases[0].end + one.phases[1].top_k));
  const flash::receipt many = one_step<insta_sparf>(opt_13b, 1, 2048);
  CHECK(many.phases[1].begin < many.phases[0].end);
  // Ranking of all heads but the last hides behind reads of others.
  CHECK(many.attention_ns < many.phases[0].total() + many.phases[1].total());
  CHECK(many.phases[1].top_k > 200'000);  // 40 x 2048 elements at 285 MHz
  CHECK(many.attention_ns - many.units[flash::unit::flash] < 20'000);
}

TEST_CASE("drive: the group buffer is read from DRAM, at its rate") {
  const flash::receipt done = one_step<insta>(few_heads, 2, 16 * 100 + 7);
  CHECK(done.traffic.buffer_bytes == 2u * 4 * 7 * 2 * 128 * 2);
  CHECK(done.units[flash::unit::dram] ==
        doctest::Approx(static_cast<double>(done.traffic.buffer_bytes) / 19.2).epsilon(1e-4));
  const flash::receipt only = one_step<insta>(few_heads, 1, 7);
  CHECK(only.traffic.pages_read == 0);
  CHECK(only.attention_ns >= only.units[flash::unit::dram]);
}

TEST_CASE("drive: options change what they should") {
  const auto ns = [](const flash::drive_spec& drive, const flash::drive_rules& rules) {
    return one_step<insta>(few_heads, 4, 4096, drive, rules).attention_ns;
  };
  const double plain = ns(flash::instcsd, {});
  // InstInfer Fig. 22: at most 4.7 per thousand.
  CHECK(ns(flash::instcsd, {.retry = flash::worst_read_retry}) < 1.0047 * plain);
  CHECK(ns(flash::instcsd, {.retry = flash::independent_failures(500'000'000, 5)}) >
        1.2 * plain);
  flash::drive_spec drive = flash::instcsd;
  drive.timing.decode_ps = 10 * flash::ps_per_us;
  CHECK(ns(drive, {}) > plain);
  drive = flash::instcsd;
  drive.timing.types = {.count = 2, .read_upper_ps = 90 * flash::ps_per_us};
  CHECK(ns(drive, {}) > plain);
  CHECK(ns(flash::instcsd, {.cache_read = true}) > plain);  // the move takes 3 us
  drive = flash::instcsd;
  drive.timing.cache_move_ps = 0;
  drive.geometry.chips = 1;  // few dies, so that the bus is not the limit
  drive.geometry.dies = 2;
  const double commands_first =
      one_step<insta, flash::command_first>(few_heads, 4, 4096, drive).attention_ns;
  CHECK(commands_first < ns(drive, {}));
  CHECK(one_step<insta, flash::command_first>(few_heads, 4, 4096, drive,
                                              {.cache_read = true})
            .attention_ns < commands_first);
  drive = flash::instcsd;
  drive.units.kernel_buffer_pages = 1;
  drive.units.filter_buffer_pages = 1;
  CHECK(ns(drive, {}) > plain);
}

TEST_CASE("drive: what cannot be is refused, with a sentence") {
  using engine = flash::engine<insta, format>;
  flash::drive_spec drive = flash::instcsd;
  const auto make = [&](const flash::drive_rules& rules = {}) {
    engine e(few_heads, {}, {}, {}, drive, {}, rules);
  };
  CHECK_THROWS_WITH_AS(
      make({.arrive = flash::arrival::one_by_one}),
      "attend timeline: the pages of a load arrive together; arrival::one_by_one is for batches",
      bad_argument);
  drive.units.kernel_buffer_pages = 0;
  CHECK_THROWS_WITH_AS(
      make(),
      "attend timeline: filter_buffer_pages and kernel_buffer_pages must be positive, "
      "got 2 and 0",
      bad_argument);
  drive = flash::instcsd;
  drive.dram_bytes_per_s = 0;
  CHECK_THROWS_WITH_AS(make(), "drive_spec: dram_bytes_per_s must be positive, got 0",
                       bad_argument);
  CHECK(!flash::valid(drive));
  drive = flash::instcsd;
  drive.units.softmax_units = 0;
  engine no_softmax(few_heads, {}, {}, {}, drive);
  const sequence seq = no_softmax.open();
  no_softmax.append_count(seq, 0, 32);
  CHECK_THROWS_AS(attend(no_softmax, {&seq, 1}), bad_argument);

  flash::drive_spec other = small_drive;
  other.geometry.blocks = 25;
  CHECK_THROWS_AS((engine_on<clean_store>(one_head, small_capacity, {}, {}, other)), bad_argument);
  engine_on<clean_store> on_ftl(one_head, small_capacity, {}, {}, small_drive);
  CHECK_THROWS_WITH_AS(on_ftl.pages().locate(page_id{5}),
                       "ftl_store: page 5 holds nothing: it was never written, or was released",
                       bad_argument);
}

TEST_CASE("drive on an FTL: sequences that go as a whole are never moved, and erases are charged") {
  engine_on<clean_store> engine(one_head, small_capacity, {}, {}, small_drive);
  flash::engine<insta, format> plain(one_head, small_capacity, {}, {}, small_drive);
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

TEST_CASE("drive on an FTL: pages are read where they lie") {
  struct seen {
    std::map<std::string, int> reads;
    void add(const std::string& group, const std::string& row, const std::string& name, double,
             double) {
      reads[group + " " + row] += name == "array read" ? 1 : 0;
    }
  };
  engine_on<clean_store> engine(one_head, small_capacity, {}, {}, small_drive);
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
  engine_on<greedy_store> engine(one_head, small_capacity, {}, {}, small_drive);
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

// Reads of a second phase come when programs have begun on idle dies. Those of a first phase come first.
TEST_CASE_TEMPLATE("background writes: an append costs its link only, and the next attend may wait",
                   D, insta, insta_sparf) {
  constexpr bool two_phases = std::is_same_v<D, insta_sparf>;
  const auto run = [](const flash::suspension& suspend, bool cache_read = false) {
    flash::engine<D, format, flash::random_selection, flash::data_out_first, clean_store,
                  flash::background_writes>
        engine(one_head, small_capacity, {}, {}, small_drive, {},
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
