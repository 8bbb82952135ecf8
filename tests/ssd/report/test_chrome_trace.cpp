// The trace that Perfetto opens, as it reads back.

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "instinfer/ssd/report/chrome_trace.hpp"
#include "tests/support/trace_bars.hpp"

namespace instinfer::test_chrome_trace {

namespace {

std::vector<test::trace_bar> bars_of(const flash::chrome_trace& trace) {
  return test::read_bars(trace.json());
}

}  // namespace

TEST_CASE("chrome trace: times keep their picoseconds, however late") {
  for (const double begin_ps :
       {0.0, 1.0, 1e6, 123'456'789.0, 98'765'432'101.0, 1'234'567'890'123.0}) {
    flash::chrome_trace trace;
    trace.add("group", "row", "bar", begin_ps, 290'001.0);
    const std::vector<test::trace_bar> bars = bars_of(trace);
    CAPTURE(begin_ps);
    REQUIRE(bars.size() == 1);
    CHECK(bars[0].group == "group");
    CHECK(bars[0].row == "row");
    CHECK(bars[0].name == "bar");
    CHECK(std::abs(bars[0].begin_us - begin_ps * 1e-6) < 1e-6);
    CHECK(std::abs(bars[0].duration_us - 0.290001) < 1e-9);
  }
}

TEST_CASE("chrome trace: nothing recorded is a trace, too, and rows of the same name stay apart") {
  CHECK(bars_of(flash::chrome_trace{}).empty());
  flash::chrome_trace trace;
  trace.add("channel 1", "bus", "a", 0, 1);
  trace.add("channel 0", "bus", "b", 0, 1);
  trace.add("channel 1", "bus", "c", 1, 1);
  const std::vector<test::trace_bar> bars = bars_of(trace);
  REQUIRE(bars.size() == 3);
  CHECK(bars[0].group == "channel 1");
  CHECK(bars[1].group == "channel 0");
  CHECK(bars[2].group == "channel 1");
}

TEST_CASE("chrome trace: any name is written so that it reads back") {
  flash::chrome_trace trace;
  trace.add("\"quoted\"", "back\\slash", "line\nbreak\ttab", 0, 1);
  trace.add("a, b}", "{\"name\":1}", "", 0, 1);
  const std::vector<test::trace_bar> bars = bars_of(trace);
  REQUIRE(bars.size() == 2);
  CHECK(bars[0].group == "\"quoted\"");
  CHECK(bars[0].row == "back\\slash");
  CHECK(bars[0].name == "line break tab");  // as blanks
  CHECK(bars[1].group == "a, b}");
  CHECK(bars[1].row == "{\"name\":1}");
  CHECK(bars[1].name.empty());
}

}  // namespace instinfer::test_chrome_trace
