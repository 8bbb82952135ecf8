// flash::engine on the whole drive: the paper's read rate, the breakdown by unit, and the options.

#include <doctest/doctest.h>

#include "instinfer/flash/engine.hpp"
#include "instinfer/flash/ftl_store.hpp"
#include "tests/support/whole_drive.hpp"

namespace instinfer::test_drive_engine {

using namespace test;

namespace {

using format = drive_format;

double read_gb_per_s(const flash::receipt& done) {
  return static_cast<double>(done.traffic.array_bytes) / done.attention_ns;
}

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
  const sequence same = paper.open();
  engine.append_count(seq, 0, 3000);
  paper.append_count(same, 0, 3000);
  const flash::receipt slow = attend(engine, {&seq, 1});
  const flash::call_times again = engine.last_attend_with(flash::instcsd.units);
  CHECK(again.attention_ns < slow.attention_ns);
  CHECK(again.attention_ns == attend(paper, {&same, 1}).attention_ns);
  CHECK(engine.last_attend_with(drive.units).attention_ns == slow.attention_ns);
}

TEST_CASE("drive: the breakdown is what the units did") {
  const flash::receipt done = one_step<insta_sparf>(few_heads, 3, 2048);
  REQUIRE(done.phases.size() == 2);
  using flash::unit;
  CHECK(done.units[unit::logit_0] == doctest::Approx(done.phases[0].gemv + done.phases[0].softmax));
  CHECK(done.units[unit::logit] + done.units[unit::attend] ==
        doctest::Approx(done.phases[1].gemv + done.phases[1].softmax));
  // As many FLOP as q.K.
  CHECK(done.units[unit::attend] == doctest::Approx(done.phases[1].gemv / 2));
  CHECK(done.units[unit::top_k] == doctest::Approx(done.phases[0].top_k + done.phases[1].top_k));
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
  CHECK(ns(flash::instcsd, {.retry = flash::independent_failures(500'000'000, 5)}) > 1.2 * plain);
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
  CHECK(one_step<insta, flash::command_first>(few_heads, 4, 4096, drive, {.cache_read = true})
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
  CHECK_THROWS_WITH_AS(make(), "accelerator: kernel_buffer_pages must be positive, got 0",
                       bad_argument);
  drive = flash::instcsd;
  drive.units.filter_bytes_per_s = 0;
  CHECK_THROWS_WITH_AS(make(), "accelerator: filter_bytes_per_s must be positive, got 0",
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
  CHECK_THROWS_AS((engine_on<clean_store>(one_head, drive_capacity, {}, {}, other)), bad_argument);
  engine_on<clean_store> on_ftl(one_head, drive_capacity, {}, {}, small_drive);
  CHECK_THROWS_WITH_AS(on_ftl.pages().locate(page_id{5}),
                       "ftl_store: page 5 holds nothing: it was never written, or was released",
                       bad_argument);
}

}  // namespace instinfer::test_drive_engine
