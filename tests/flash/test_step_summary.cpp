// The summary of a decode step: by hand on a small trace, and against the timeline's own statistics
// on an engine's.

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "instinfer/flash/engine.hpp"
#include "instinfer/flash/step_summary.hpp"
#include "instinfer/ssd/report/chrome_trace.hpp"

namespace instinfer::test_step_summary {

namespace {

struct hand_receipt : instinfer::receipt, flash::call_times {};

}  // namespace

TEST_CASE("step summary: by hand") {
  flash::chrome_trace trace;
  trace.add("units", "link", "q down", 0, 100e3);  // 100 ns
  // From 200 ns on: three pages, there after 300, 400 and 700 ns.
  trace.add("channel 0", "bus", "command", 200e3, 10e3);
  trace.add("channel 0", "chip 0 die 0 plane 0", "array read", 210e3, 190e3);
  trace.add("channel 0", "bus", "data out", 400e3, 100e3);
  trace.add("channel 1", "bus", "command", 200e3, 10e3);
  trace.add("channel 1", "bus", "data out", 500e3, 100e3);
  trace.add("units", "softmax", "Logit", 200e3, 50e3);
  trace.add("channel 1", "bus", "command", 700e3, 10e3);
  trace.add("channel 1", "bus", "data out", 800e3, 100e3);
  trace.add("channel 1", "filter", "entry filter", 900e3, 50e3);
  hand_receipt done;
  done.traffic = {
      .pages_read = 3, .array_bytes = 12'288, .channel_bytes = 12'288, .filtered_bytes = 1'000};
  done.attention_ns = 1000;
  done.bounds[flash::resource::bus] = 950;
  done.phases = {{.op = attention::operation::score_dims, .pages = 2, .end = 500},
                 {.op = attention::operation::fold, .pages = 1, .begin = 100, .end = 400}};
  const flash::step_summary all = flash::summarize(done, trace);
  CHECK(all.total_ns == 1000);
  REQUIRE(all.resources.size() == 5);
  CHECK(all.resources[0].name == "link");
  CHECK(all.resources[0].mean_busy_ns == doctest::Approx(100));
  CHECK(all.resources[1].name == "softmax");
  CHECK(all.resources[1].mean_busy_ns == doctest::Approx(50));
  CHECK(all.resources[2].name == "buses");
  CHECK(all.resources[2].count == 2);
  CHECK(all.resources[2].mean_busy_ns == doctest::Approx((110 + 220) / 2.0));
  CHECK(all.resources[2].most_busy_ns == doctest::Approx(220));
  CHECK(all.resources[3].name == "planes");
  CHECK(all.resources[3].count == 1);
  CHECK(all.resources[4].name == "filters");
  CHECK(all.page_ps == flash::latencies{.count = 3,
                                        .p50_ticks = 400'000,
                                        .p99_ticks = 700'000,
                                        .p999_ticks = 700'000,
                                        .max_ticks = 700'000});
  REQUIRE(all.phases.size() == 2);
  CHECK(all.phases[1].op == attention::operation::fold);
  CHECK(all.phases[1].total() == 300);
  const std::string text = to_string(all);
  CHECK(text.starts_with("step 1.00 us, 3 pages\nbottleneck bus: 0.95 us, 95.0% of the step\n\n"));
  for (const char* part :
       {"buses                2        0.17   16.5%          0.22   22.0%\n",
        "12288       12288        1000           0           0\n",
        "0.40        0.70        0.70        0.70\n", "score dims             2      0.50"}) {
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  }

  hand_receipt other = done;
  other.traffic.pages_read = 2;
  CHECK_THROWS_WITH_AS(flash::summarize(other, trace),
                       doctest::Contains("the receipt has 2 page reads, the trace 3"),
                       bad_argument);
}

TEST_CASE("times of two calls: parts add up, the background is that after the second") {
  flash::call_times sum{.link_ns = 1,
                        .attention_ns = 2,
                        .flash_write_ns = 3,
                        .moving_ns = 4,
                        .erase_ns = 5,
                        .stalled_ns = 6,
                        .delay_ns = 7,
                        .background_ns = 8,
                        .backlog = 9};
  sum.phases.resize(2);
  flash::call_times next{.link_ns = 10,
                         .attention_ns = 20,
                         .flash_write_ns = 30,
                         .moving_ns = 40,
                         .erase_ns = 50,
                         .stalled_ns = 60,
                         .delay_ns = 70,
                         .background_ns = 80,
                         .backlog = 90};
  next.phases.resize(1);
  sum += next;
  CHECK(sum.phases.size() == 3);
  CHECK(sum.link_ns == 11);
  CHECK(sum.attention_ns == 22);
  CHECK(sum.flash_write_ns == 33);
  CHECK(sum.moving_ns == 44);
  CHECK(sum.erase_ns == 55);
  CHECK(sum.stalled_ns == 66);
  CHECK(sum.delay_ns == 77);
  CHECK(sum.background_ns == 80);
  CHECK(sum.backlog == 90);
}

namespace {

// Keeps the names of bars.
struct names_of_bars {
  std::vector<std::string> names;
  void add(const std::string&, const std::string&, const std::string& name, double, double) {
    names.push_back(name);
  }
};

}  // namespace

TEST_CASE("bars of the multiplier are named by what it multiplies") {
  names_of_bars drawn;
  flash::attend_trace<names_of_bars> trace(drawn, 0, 1);
  for (const auto step :
       {flash::kernel_step::logit_0, flash::kernel_step::logit, flash::kernel_step::attend}) {
    trace.gemv(step, 0, 0, 10);
  }
  CHECK(drawn.names == std::vector<std::string>{"Logit-0", "Logit", "Attend"});
  CHECK(flash::attend_times{}.stalled_ticks == 0);
}

TEST_CASE("step summary: of an engine's attend") {
  using format = kv_format<fp16, 128>;
  flash::engine<insta_sparf, format> clock({.layers = 1, .q_heads = 4, .kv_heads = 4},
                                           {.bytes = 64 << 20, .context_tokens = 4096});
  const sequence seq = clock.open();
  clock.append_count(seq, 0, 3000);
  const std::vector<float> q(4 * 128);
  std::vector<float> out(q.size());
  flash::chrome_trace trace;
  const flash::receipt done = clock.attend(seq, 0, q, out, &trace);
  const flash::step_summary all = flash::summarize(done, trace);
  CHECK(all.total_ns == done.total_ns());
  CHECK(all.traffic == done.traffic);
  REQUIRE(all.phases.size() == done.phases.size());
  const std::uint64_t pages = done.traffic.pages_read;
  for (std::size_t i = 0; i < all.phases.size(); ++i) {
    CHECK(all.phases[i].op == done.phases[i].op);
    CHECK(all.phases[i].pages == done.phases[i].pages);
  }
  // No page before command, array and its own transfer; none after the step.
  CHECK(all.page_ps.count == static_cast<std::int64_t>(pages));
  CHECK(static_cast<double>(all.page_ps.p50_ticks) * 1e-3 >= 290 + 45'020 + 2'925);
  CHECK(all.page_ps.p50_ticks <= all.page_ps.p99_ticks);
  CHECK(static_cast<double>(all.page_ps.max_ticks) * 1e-3 <= all.total_ns + 1e-3);
  const auto buses =
      std::ranges::find(all.resources, std::string("buses"), &flash::resource_use::name);
  REQUIRE(buses != all.resources.end());
  // All transfers, and command cycles: RC(1) = 290 ns for one page, RC(2) = 940 ns for two.
  const double transfers_ns = static_cast<double>(pages) * 4096 / 1.4;
  const double busy_ns = buses->mean_busy_ns * static_cast<double>(buses->count);
  CHECK(busy_ns >= transfers_ns + static_cast<double>(pages) * 290 - 1);
  CHECK(busy_ns <= transfers_ns + static_cast<double>(pages) * 470 + 1);
  for (const flash::resource_use& use : all.resources) {
    CHECK(use.mean_busy_ns <= use.most_busy_ns * (1 + 1e-12));
    CHECK(use.most_busy_ns <= all.total_ns * (1 + 1e-12));
  }
}

}  // namespace instinfer::test_step_summary
