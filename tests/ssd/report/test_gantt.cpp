// The Gantt chart: a bar where the time says, rows in their order, windows, small files; refusals.

#include <doctest/doctest.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/report/event_bars.hpp"
#include "instinfer/ssd/report/gantt.hpp"
#include "instinfer/ssd/spec/placement.hpp"
#include "tests/support/read_svg.hpp"

namespace instinfer::test_gantt {

using namespace flash;

namespace {

// The bars of a look (a part of the style), without the legend below.
std::vector<test::svg_element> bars(const std::string& svg, const std::string& look) {
  std::vector<test::svg_element> boxes = test::read_svg(svg, "rect");
  std::erase_if(boxes, [&](const test::svg_element& box) {
    return !box.attributes.contains("style") ||
           !box.attributes.at("style").ends_with(std::string("fill:") + look) ||
           box.number("height") != 18;
  });
  return boxes;
}

std::vector<std::string> texts(const std::string& svg) {
  std::vector<std::string> all;
  for (const test::svg_element& e : test::read_svg(svg, "text")) {
    all.push_back(e.text);
  }
  return all;
}

bool has(const std::vector<std::string>& all, const std::string& text) {
  return std::ranges::count(all, text) > 0;
}

}  // namespace

TEST_CASE("gantt: bars lie where their times say") {
  chrome_trace trace;
  trace.add("channel 0", "bus", "command", 0, 10e6);
  trace.add("channel 0", "chip 0 die 0 plane 0", "array read", 10e6, 60e6);
  trace.add("channel 0", "bus", "data out", 70e6, 30e6);
  trace.add("units", "filters", "entry filter", 50e6, 50e6);
  const std::string svg = gantt(trace, {.title = "a < b & c", .groups = {}});
  const auto command = bars(svg, "#111");
  const auto array = bars(svg, "#fff");
  const auto data = bars(svg, "url(#slanted)");
  const auto unit = bars(svg, "#ccc");
  REQUIRE(command.size() == 1);
  REQUIRE(array.size() == 1);
  REQUIRE(data.size() == 1);
  REQUIRE(unit.size() == 1);
  // 100 us over the whole width; digits are written to 0.01 px.
  const double left = command[0].number("x");
  const double px_per_us = (data[0].number("x") + data[0].number("width") - left) / 100;
  CHECK(left + px_per_us * 100 == doctest::Approx(960 - 20).epsilon(1e-4));
  CHECK(command[0].number("width") == doctest::Approx(10 * px_per_us).epsilon(1e-3));
  CHECK(array[0].number("x") == doctest::Approx(left + 10 * px_per_us).epsilon(1e-3));
  CHECK(array[0].number("width") == doctest::Approx(60 * px_per_us).epsilon(1e-3));
  CHECK(data[0].number("x") == doctest::Approx(left + 70 * px_per_us).epsilon(1e-3));
  CHECK(unit[0].number("x") == doctest::Approx(left + 50 * px_per_us).epsilon(1e-3));
  CHECK(command[0].number("y") == data[0].number("y"));
  CHECK(array[0].number("y") > data[0].number("y"));
  const std::vector<std::string> words = texts(svg);
  for (const char* word :
       {"a < b & c", "channel 0", "bus", "chip 0 die 0 plane 0", "units", "filters", "entry filter",
        "array read", "time (\u00b5s)", "0", "20", "100"}) {
    CAPTURE(word);
    CHECK(has(words, word));
  }
  CHECK(!has(words, "program"));  // the legend has what is there
  // The axis and the legend stand below the last row.
  const double bottom = unit[0].number("y") + unit[0].number("height");
  for (const auto& word : test::read_svg(svg, "text")) {
    if (word.text == "time (\u00b5s)" || word.text == "array read") {
      CHECK(word.number("y") > bottom);
    }
  }
}

TEST_CASE("gantt: the bus above the planes, planes by their numbers, groups by first use") {
  chrome_trace trace;
  for (const char* row : {"chip 10 die 0 plane 0", "chip 2 die 1 plane 0", "bus",
                          "chip 2 die 0 plane 1", "chip 2 die 0 plane 0"}) {
    trace.add("channel 1", row, "array read", 0, 1e6);
  }
  trace.add("channel 0", "bus", "command", 0, 1e6);
  std::vector<std::string> rows = texts(gantt(trace));
  std::erase_if(rows,
                [](const std::string& text) { return !text.starts_with("ch") && text != "bus"; });
  CHECK(rows == std::vector<std::string>{"channel 1", "bus", "chip 2 die 0 plane 0",
                                         "chip 2 die 0 plane 1", "chip 2 die 1 plane 0",
                                         "chip 10 die 0 plane 0", "channel 0", "bus"});
  rows = texts(gantt(trace, {.title = {}, .groups = {"channel 0"}}));
  CHECK(has(rows, "channel 0"));
  CHECK(!has(rows, "channel 1"));
}

TEST_CASE("gantt: a window cuts bars off, and leaves out those beside it") {
  chrome_trace trace;
  for (int i = 0; i < 10; ++i) {
    trace.add("channel 0", "bus", "data out", i * 10e6, 9e6);
  }
  const std::string svg =
      gantt(trace, {.title = {}, .groups = {}, .begin_ps = 35e6, .end_ps = 75e6});
  const auto boxes = bars(svg, "url(#slanted)");
  REQUIRE(boxes.size() == 5);  // 30, 40, 50, 60, 70
  CHECK(boxes[0].number("width") ==
        doctest::Approx(boxes[1].number("width") * 4 / 9).epsilon(1e-2));
  CHECK(boxes[4].number("x") + boxes[4].number("width") == doctest::Approx(940));
  // A mark each 5 us, from one end of the window to the other.
  std::vector<double> marks;
  for (const test::svg_element& e : test::read_svg(svg, "text")) {
    if (!e.text.empty() && e.text.find_first_not_of("0123456789") == std::string::npos) {
      marks.push_back(e.number("x"));
      CHECK(e.text == std::to_string(30 + 5 * marks.size()));
    }
  }
  REQUIRE(marks.size() == 9);
  CHECK(marks.front() == doctest::Approx(boxes[0].number("x")).epsilon(1e-4));
  CHECK(marks.back() == doctest::Approx(940).epsilon(1e-4));
}

TEST_CASE("gantt: of bars thinner than a pixel, neighbours are one box") {
  const geometry g{.channels = 1, .chips = 4, .planes = 2, .blocks = 64, .pages = 256};
  const timing t{.read_ps = 45 * ps_per_us,
                 .program_ps = 450 * ps_per_us,
                 .erase_ps = 3'500 * ps_per_us,
                 .bus_bytes_per_s = 1'400'000'000};
  timeline<> flash(g, t);
  const placement where{g};
  std::vector<location> pages;
  for (std::int64_t n = 0; n < 20'000; ++n) {
    pages.push_back(where.striped(n));
  }
  chrome_trace trace;
  flash.read(pages, {}, event_bars(trace, flash.scale().ticks_per_ps));
  REQUIRE(trace.rows().size() == 9);  // a bus, eight planes
  const std::string svg = gantt(trace);
  CHECK(svg.size() < 1'000'000);
  CHECK(test::svg_reader::read(svg).size() < 8'000);
}

TEST_CASE("gantt: bad input") {
  CHECK_THROWS_WITH_AS(gantt(chrome_trace{}), doctest::Contains("nothing to show"), bad_argument);
  chrome_trace trace;
  trace.add("units", "link", "q down", 0, 1e6);
  CHECK_THROWS_WITH_AS(gantt(trace, {.title = {}, .groups = {"channel 7"}}),
                       "gantt: the trace has no group \"channel 7\"", bad_argument);
  CHECK_THROWS_WITH_AS(gantt(trace, {.title = {}, .groups = {}, .begin_ps = 2e6}),
                       doctest::Contains("nothing to show between 2000000"), bad_argument);
  CHECK_THROWS_WITH_AS(gantt(trace, {.title = {}, .groups = {}, .width_px = 100}),
                       doctest::Contains("below 300 px"), bad_argument);
}

}  // namespace instinfer::test_gantt
