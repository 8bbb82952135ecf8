// The flash path: its times obey what every model of a drive must; refusals leave all as it was.

#include <doctest/doctest.h>

#include <array>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "instinfer/flash/engine.hpp"
#include "tests/paths/random_cache.hpp"
#include "tests/support/shared_attends.hpp"
#include "tests/support/timed_cache.hpp"

namespace instinfer::test_engine {

using namespace test;

namespace {

using format = kv_format<fp16, 64>;
constexpr int dim = 64;
constexpr model_shape shape{.layers = 2, .q_heads = 6, .kv_heads = 2};  // GQA 3
const store::capacity capacity{.bytes = 16 << 20, .context_tokens = 512};

static_assert(Engine<flash::engine<insta>> && Engine<flash::engine<flexgen_sparq, format>>);
static_assert(Engine<flash::engine<insta_sparf, format, cpu::path>> &&
              Engine<flash::engine<insta_sparf, format, reference::path, flash::command_first>>);

}  // namespace

TEST_CASE_TEMPLATE("flash engine: dense reads more pages for more tokens, never fewer", D, insta,
                   flexgen) {
  timed_cache<D> cache;
  const sequence seq = cache.engine.open();
  flash::receipt before = cache.attend(seq);
  CHECK(before.traffic.pages_read == 0);
  std::mt19937 random(31);
  for (int total = 0; total < 3000;) {
    const int more = 1 + static_cast<int>(random() % 90);
    cache.engine.append_count(seq, 0, static_cast<std::uint64_t>(more));
    total += more;
    CAPTURE(total);
    const flash::receipt now = cache.attend(seq);
    CHECK(now.traffic.pages_read >= before.traffic.pages_read);
    CHECK(now.traffic.pages_read == static_cast<std::uint64_t>(2 * 2 * (total / 32)));
    // Pages of whole groups: all wanted.
    CHECK(now.traffic.filtered_bytes + now.traffic.buffer_bytes ==
          static_cast<std::uint64_t>(total) * 2 * 2 * dim * 2);
    before = now;
  }
}

TEST_CASE_TEMPLATE("flash engine: a faster bus or more channels do not slow dense attention down",
                   D, insta, flexgen) {
  for (const std::uint64_t tokens : {40u, 500u, 1111u, 4096u, 10'000u}) {
    CAPTURE(tokens);
    double slowest_ns = 1e300;
    for (const std::int64_t rate : {std::int64_t{400'000'000}, std::int64_t{700'000'000},
                                    std::int64_t{1'400'000'000}, std::int64_t{2'400'000'000}}) {
      CAPTURE(rate);
      flash::drive_spec drive = D::drive;
      drive.timing.bus_bytes_per_s = rate;
      const flash::receipt done = one_attend<D>(tokens, drive);
      CHECK(flash_ns(done) <= slowest_ns);
      slowest_ns = flash_ns(done);
    }
    // Behind units that keep up: slow ones with little room make the order of pages matter, and
    // more channels deliver all of K before V.
    double total_ns = 1e300;
    for (const std::int32_t channels : {1, 2, 4, 8, 16, 32}) {
      CAPTURE(channels);
      flash::drive_spec drive = D::drive;
      drive.geometry.channels = channels;
      if (drive.units.present()) {
        drive.units = flash::accelerator_for(1'000'000'000'000);
      }
      const flash::receipt done = one_attend<D>(tokens, drive);
      CHECK(done.total_ns() <= total_ns);
      total_ns = done.total_ns();
    }
  }
}

TEST_CASE_TEMPLATE(
    "flash engine: a batch moves the sum of its requests, in no more than their time", D, insta,
    insta_sparf, flexgen, flexgen_sparq) {
  for (const unsigned seed : {41u, 42u, 43u}) {
    CAPTURE(seed);
    std::mt19937 random(seed);
    timed_cache<D> cache;
    std::vector<sequence> all;
    traffic moved;
    double ns = 0;
    double slowest_ns = 0;
    for (int i = 0; i < 12; ++i) {
      all.push_back(cache.filled(random() % 1500));
      const flash::receipt alone = cache.attend(all.back());
      moved += alone.traffic;
      ns += alone.total_ns();
      slowest_ns = std::max(slowest_ns, alone.total_ns());
      const flash::receipt together = cache.attend_all(all);
      CHECK(together.traffic == moved);
      CHECK(charged_pages(together) == moved.pages_read);
      CHECK(together.total_ns() <= ns);
      CHECK(together.total_ns() >= slowest_ns);
    }
  }
  CHECK(timed_cache<D>{}.attend_all({}).traffic == traffic{});
}

TEST_CASE_TEMPLATE("flash engine: host routes take at least the links' time and the software's", D,
                   flexgen, flexgen_gds, flexgen_sparq) {
  constexpr bool through_host = !std::is_same_v<D, flexgen_gds>;
  for (const std::uint64_t tokens : {1u, 40u, 700u, 5000u}) {
    CAPTURE(tokens);
    const flash::receipt done = one_attend<D>(tokens);
    const auto bytes = static_cast<double>(done.traffic.link_bytes);
    CHECK(done.traffic.link_bytes == done.traffic.channel_bytes + done.traffic.buffer_bytes);
    // No filter in front of a host.
    CHECK(done.traffic.filtered_bytes == done.traffic.channel_bytes);
    double route_ns = 0;
    for (const flash::phase_ns& phase : done.phases) {
      route_ns += phase.route;
      CHECK(phase.filter + phase.gemv + phase.softmax + phase.top_k == 0);
    }
    // 7 GB/s to the host, 32 GB/s to the GPU, 121 us for each 128 KiB.
    const double least_ns =
        bytes / 7.0 + (through_host ? bytes / 32.0 : 0.0) + bytes / (128 * 1024) * 121'000;
    CHECK(route_ns >= least_ns);
    CHECK(route_ns <= least_ns + static_cast<double>(done.phases.size()) * (4'000 + 121'000));
    CHECK(done.total_ns() >= least_ns);
    CHECK(done.link_ns == 0);
  }
}

TEST_CASE_TEMPLATE("flash engine: in storage, only the query and the output cross the link", E,
                   fp16, bf16, fp32) {
  const auto check = [&]<class D>(const D&) {
    for (const std::uint64_t tokens : {0u, 1u, 700u}) {
      timed_cache<D, kv_format<E, 64, 80>> cache;
      const flash::receipt done = cache.attend(cache.filled(tokens));
      CHECK(done.traffic.link_bytes == (6 * 64 + 6 * 80) * sizeof(E));
      CHECK(done.traffic.filtered_bytes <= done.traffic.channel_bytes);
      CHECK(done.traffic.channel_bytes == done.traffic.array_bytes);
      // Peer to peer: 7 GB/s, 2 us for the first byte, 10 us for the command.
      CHECK(done.link_ns == doctest::Approx((6 * 64 + 6 * 80) * sizeof(E) / 7.0 + 2'000 + 10'000));
      for (const flash::phase_ns& phase : done.phases) {
        CHECK(phase.route == 0);
        CHECK((phase.pages == 0 || phase.filter > 0));
        CHECK((tokens == 0 || phase.gemv > 0));
      }
    }
  };
  check(insta{});
  check(insta_sparf{});
}

TEST_CASE("flash engine: a sparse policy filters, and ranks what the paper's unit ranks") {
  const flash::receipt done = one_attend<insta_sparf>(2048);
  REQUIRE(done.phases.size() == 2);
  CHECK(done.phases[0].op == attention::operation::score_dims);
  CHECK(done.phases[1].op == attention::operation::fold);
  CHECK(done.traffic.filtered_bytes < done.traffic.channel_bytes);
  // One element a cycle of 285 MHz: 64 dims before the first pass, 2048 tokens before the second, 2
  // KV heads.
  CHECK(done.phases[0].top_k == doctest::Approx(2 * 64 / 0.285).epsilon(1e-3));
  CHECK(done.phases[1].top_k == doctest::Approx(2 * 2048 / 0.285).epsilon(1e-3));
  // Wanted bytes: 8 of 64 dims of K, all tokens; then 128 of 2048 tokens, K and V. 2 bytes an
  // element, 2 heads.
  CHECK(done.traffic.filtered_bytes + done.traffic.buffer_bytes ==
        2 * 2 * (8 * 2048 + 128 * 2 * 64));
  // GeMV: 2 FLOP a wanted element and query head, on two kernels of 12.7 GFLOPS.
  CHECK(done.phases[0].gemv == doctest::Approx(2 * 6 * 8 * 2048 / 25.4).epsilon(1e-3));
  CHECK(done.phases[1].gemv == doctest::Approx(2 * 6 * 128 * 2 * 64 / 25.4).epsilon(1e-3));
  // Softmax: 5 FLOP a score and query head, 22 units of 14.2 MFLOPS.
  CHECK(done.phases[0].softmax == doctest::Approx(5 * 6 * 2048 / (22 * 14.2e-3)).epsilon(1e-3));
  CHECK(done.phases[1].softmax == doctest::Approx(5 * 6 * 128 / (22 * 14.2e-3)).epsilon(1e-3));
}

TEST_CASE("flash engine: the arbitration is part of the model") {
  const auto attend = [](auto engine) {
    const sequence seq = engine.open();
    engine.append_count(seq, 0, 20'000);
    const std::vector<float> q(2 * dim, 1.0f);
    std::vector<float> out(2 * dim);
    return engine.attend(seq, 0, q, out);
  };
  const model_shape heads{.layers = 1, .q_heads = 2, .kv_heads = 2};
  const auto data_first = attend(flash::engine<insta_sparf, format>(heads, {}));
  const auto commands_first = attend(
      flash::engine<insta_sparf, format, flash::random_selection, flash::command_first>(heads, {}));
  CHECK(data_first.traffic == commands_first.traffic);
  CHECK(flash_ns(data_first) != flash_ns(commands_first));
}

// 64 groups of K and 64 of V over 8 channels, one KV head: 16 pages each. A single head must not
// leave a channel idle.
TEST_CASE("flash engine: the pages of one head lie on all channels alike") {
  timed_cache<insta> cache(flash::instcsd, {.layers = 1, .q_heads = 3, .kv_heads = 1});
  flash::chrome_trace trace;
  const sequence seq = cache.filled(64 * 32);
  cache.engine.attend(seq, 0, cache.q, cache.out, &trace);
  std::map<std::string, int> pages;
  for (const test::trace_bar& bar : bars_of(trace)) {
    pages[bar.group] += bar.name == "data out" ? 1 : 0;
  }
  for (int channel = 0; channel < 8; ++channel) {
    CAPTURE(channel);
    CHECK(pages["channel " + std::to_string(channel)] == 16);
  }
}

TEST_CASE("flash engine: appends take the slower of link and flash") {
  timed_cache<insta> cache;
  const sequence seq = cache.engine.open();
  const flash::receipt one = cache.engine.append_count(seq, 0, 1);  // into the group buffer
  CHECK(one.traffic.pages_written == 0);
  CHECK(one.flash_write_ns == 0);
  CHECK(one.traffic.link_bytes == 2 * 2 * dim * 2);
  CHECK(one.link_ns == doctest::Approx(2 * 2 * dim * 2 / 7.0 + 12'000));
  const flash::receipt group = cache.engine.append_count(seq, 0, 31);  // seals K and V of two heads
  CHECK(group.traffic.pages_written == 4);
  CHECK(group.traffic.written_bytes == 4 * 4096);
  CHECK(group.flash_write_ns > 450'000);  // tPROG
  CHECK(group.link_ns == 0);
  CHECK(group.total_ns() == group.flash_write_ns);
  const flash::receipt prompt = cache.engine.append_count(seq, 0, 32 * 1024);
  CHECK(prompt.traffic.pages_written == 4 * 1024);
  CHECK(prompt.total_ns() >= 4 * 1024 * 4096 / 7.0);
}

TEST_CASE("flash engine: drives that do not fit are refused") {
  using engine_type = flash::engine<insta, format>;
  flash::drive_spec large_pages = flash::instcsd;
  large_pages.geometry.page_bytes = 16384;
  large_pages.geometry.codeword_bytes = 4096;
  CHECK_THROWS_WITH_AS(engine_type(shape, capacity, {}, {}, large_pages),
                       "flash engine: the drive's pages have 16384 bytes, the layout's 4096",
                       bad_argument);
  flash::drive_spec small = flash::instcsd;
  small.geometry.blocks = 1;  // 8 x 4 x 4 x 2 planes x 1024 pages: 1 GiB
  CHECK_THROWS_WITH_AS(engine_type(shape, {.bytes = (1u << 30) + 1}, {}, {}, small),
                       "flash engine: the drive holds 1073741824 bytes, the capacity is 1073741825",
                       bad_argument);
  CHECK_NOTHROW(engine_type(shape, {.bytes = 1u << 30}, {}, {}, small));
  flash::drive_spec no_channels = flash::instcsd;
  no_channels.geometry.channels = 0;
  CHECK_THROWS_AS(engine_type(shape, capacity, {}, {}, no_channels), bad_argument);
  flash::drive_spec no_bus = flash::instcsd;
  no_bus.timing.bus_bytes_per_s = 0;
  CHECK_THROWS_AS(engine_type(shape, capacity, {}, {}, no_bus), bad_argument);
}

TEST_CASE("flash engine: a call that throws leaves cache and output as they were") {
  flash::engine<insta, format, cpu::path> engine(shape, capacity);
  const test::random_cache<format> data(51, 100, shape.q_heads, shape.kv_heads);
  const sequence seq = engine.open();
  engine.append(seq, 0, data.k, data.v);
  const std::vector<float> untouched(data.q.size(), -1.0f);
  std::vector<float> out = untouched;
  const flash::receipt good = engine.attend(seq, 0, data.q, out);
  const std::vector<float> answer = out;
  out = untouched;

  const sequence never{.slot = 3, .generation = 0};
  CHECK_THROWS_AS(engine.attend(never, 0, data.q, out), unknown_sequence);
  CHECK_THROWS_AS(engine.append(never, 0, data.k, data.v), unknown_sequence);
  CHECK_THROWS_AS(engine.reclaim(never), unknown_sequence);
  const sequence gone = engine.open();
  engine.reclaim(gone);
  CHECK_THROWS_AS(engine.attend(gone, 0, data.q, out), unknown_sequence);
  CHECK_THROWS_AS(engine.attend(seq, 2, data.q, out), bad_argument);
  CHECK_THROWS_AS(engine.attend(seq, -1, data.q, out), bad_argument);
  CHECK_THROWS_AS(engine.attend(seq, 0, std::span(data.q).first(data.q.size() - 1), out),
                  bad_argument);
  CHECK_THROWS_AS(engine.attend(seq, 0, data.q, std::span(out).first(out.size() - 1)),
                  bad_argument);
  std::vector<float> not_finite = data.q;
  not_finite[130] = std::numeric_limits<float>::quiet_NaN();
  CHECK_THROWS_WITH_AS(engine.attend(seq, 0, not_finite, out),
                       "attend: q must be finite, is not at [head 2, dim 2]", bad_argument);
  CHECK(out == untouched);

  // In a batch, requests before the bad one are answered; the next batch is not disturbed.
  std::vector<float> first = untouched;
  const std::array<flash::engine<insta, format, cpu::path>::request, 2> batch{
      {{seq, data.q, first}, {gone, data.q, out}}};
  CHECK_THROWS_AS(engine.attend_batch(0, batch), unknown_sequence);
  CHECK(first == answer);
  CHECK(out == untouched);
  const flash::receipt again = engine.attend(seq, 0, data.q, out);
  check_same(good, again);
  CHECK(out == answer);
}

TEST_CASE("flash engine: attention in storage on a drive without accelerator is refused") {
  using no_engine =
      design<attention::dense, layout::token_indexed<>, flash::pcie4_ssd, transfer::in_storage>;
  CHECK_THROWS_WITH_AS(
      (flash::engine<no_engine>({}, {})),
      "flash engine: attention in storage needs a drive with an accelerator, this one has none",
      bad_argument);
}

TEST_CASE("flash engine: nothing moved takes no time") {
  flash::engine<flexgen> drive({}, {});
  const sequence seq = drive.open();
  CHECK(drive.append_count(seq, 0, 0).total_ns() == 0.0);
  const std::vector<float> q(128, 1.0f);
  std::vector<float> out(128);
  CHECK(drive.attend(seq, 0, q, out).total_ns() == 0.0);
}

}  // namespace instinfer::test_engine
