// Every number and picture of docs/flash.md, from the model: the document holds what is printed
// here, word for word.

#include <doctest/doctest.h>

#include <cmath>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/report/event_bars.hpp"
#include "instinfer/ssd/report/gantt.hpp"
#include "instinfer/ssd/spec/placement.hpp"
#include "instinfer/ssd/spec/presets.hpp"
#include "support/option_costs.hpp"
#include "tests/support/shared_timelines.hpp"

namespace instinfer::test_worked_example {

using namespace flash;

namespace {

std::string file(const std::string& name) {
  std::ifstream in(std::string(INSTINFER_DOCS "/") + name, std::ios::binary);
  REQUIRE(in.good());
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

void check_says(const std::string& text) {
  static const std::string document = file("flash.md");
  INFO("docs/flash.md should say: ", text);
  CHECK(document.find(text) != std::string::npos);
}

// 1,234,567
std::string commas(std::int64_t n) {
  const std::string digits = std::to_string(n);
  std::string grouped;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) {
      grouped += ',';
    }
    grouped += digits[i];
  }
  return grouped;
}

std::string decimals(double x, int places) {
  char buffer[64];
  std::snprintf(buffer, sizeof(buffer), "%.*f", places, x);
  return buffer;
}

// The paper's channels with fewer dies, as the example says.
const geometry small = [] {
  geometry g = vnand_v6_2tb;
  g.dies = 1;
  g.planes = 1;
  return g;
}();
const timing mqsim = [] {
  timing t = vnand_v6_timing;
  t.page_transfer_ps = 2'920 * ps_per_ns;
  return t;
}();

std::vector<location> striped(int count) {
  const placement where{small};
  std::vector<location> pages;
  for (int n = 0; n < count; ++n) {
    pages.push_back(where.striped(n));
  }
  return pages;
}

template <class Arbitration = data_out_first>
std::int64_t makespan_ns(int pages, const timing& t = mqsim) {
  return timeline<Arbitration>(small, t).read(striped(pages)).makespan_ns();
}

// The rows of a channel's table.
template <class Arbitration>
std::vector<std::string> rows_of(int channel) {
  timeline<Arbitration> flash(small, mqsim);
  const std::int64_t ticks_per_ns = flash.scale().ticks_per_ps * ps_per_ns;
  std::map<std::size_t, std::map<event_kind, std::string>> times;  // by page
  std::map<std::size_t, std::int32_t> chips;
  flash.read(striped(33), {}, [&](const event& e) {
    if (e.channel == channel) {
      REQUIRE(e.begin_ticks % ticks_per_ns == 0);
      chips[e.index] = e.chip;
      times[e.index][e.kind] =
          commas(e.begin_ticks / ticks_per_ns) + " to " + commas(e.end_ticks / ticks_per_ns);
    }
  });
  std::vector<std::string> rows;
  for (auto& [page, of] : times) {
    rows.push_back(std::string("| ") + std::to_string(page) + " | " + std::to_string(chips[page]) +
                   " | " + of[event_kind::command] + " | " + of[event_kind::array_read] + " | " +
                   of[event_kind::data_out] + " |\n");
  }
  return rows;
}

template <class Arbitration>
chrome_trace trace_of_33() {
  timeline<Arbitration> flash(small, mqsim);
  chrome_trace trace;
  flash.read(striped(33), {}, event_bars(trace, flash.scale().ticks_per_ps));
  return trace;
}

}  // namespace

TEST_CASE("docs/flash.md: the sums of the worked example") {
  // By hand, from the constants alone.
  const std::int64_t command = 140 + 150;
  const std::int64_t array = 45'000 + 20;
  const std::int64_t transfer = 2'920;
  const std::int64_t one = command + array + transfer;
  const std::int64_t four = command + array + 4 * transfer;
  CHECK(makespan_ns(1) == one);
  CHECK(makespan_ns(32) == four);
  CHECK(makespan_ns(33) == four + one);
  CHECK(makespan_ns(1000) == 31 * four + one);
  check_says("RC(p) = 140 + 150 p + 500 (p \u2212 1) ns");
  CHECK(mqsim.read_cycles_ps(3) == (140 + 150 * 3 + 500 * 2) * ps_per_ns);
  const std::string parts = commas(command) + " + " + commas(array);
  check_says(parts + " + " + commas(transfer) + " = " + commas(one) + " ns");
  check_says(std::string(parts) + " + 4 \u00d7 " + commas(transfer) + " = " + commas(four) + " ns");
  check_says(commas(four) + " + " + commas(one) + " = " + commas(makespan_ns(33)) + " ns");
  check_says(std::string("31 \u00d7 ") + commas(four) + " + " + commas(one) + " = " +
             commas(makespan_ns(1000)) + " ns");
  const auto gb_per_s = [](int pages, std::int64_t ns) {
    return decimals(static_cast<double>(pages) * 4096 / static_cast<double>(ns), 3) + " GB/s";
  };
  check_says(gb_per_s(33, makespan_ns(33)));
  check_says(gb_per_s(1000, makespan_ns(1000)));
  check_says(std::string("The buses could carry ") + decimals(8 * 4096 / 2920.0, 1));
  check_says(std::string("wait ") + commas(command + array) + " for the first array");
  check_says(decimals(sequential_read_bytes_per_s(instcsd) * 1e-9, 2) + " GB/s");

  const std::int64_t command_first_ns = makespan_ns<command_first>(33);
  check_says(commas(command_first_ns) + " ns, " +
             decimals(100 - 100.0 * static_cast<double>(command_first_ns) /
                                static_cast<double>(makespan_ns(33)),
                      1) +
             " % less");

  // 4096 B / 1.4 GB/s = 20480/7 ns = 2925 5/7 ns.
  CHECK(ticks_of(vnand_v6_timing, small).page_transfer_ticks * 7 ==
        20'480 * ticks_of(vnand_v6_timing, small).from_ps(ps_per_ns));
  check_says(commas(20'480 / 7) + " " + std::to_string(20'480 % 7) + "/7");
  check_says(std::string("the 33 pages take ") + commas(makespan_ns(33, vnand_v6_timing)) + " ns");
}

TEST_CASE("docs/flash.md: the tables of channels 0 and 1, row by row") {
  for (const auto& rows :
       {rows_of<data_out_first>(1), rows_of<data_out_first>(0), rows_of<command_first>(0)}) {
    std::string table;
    for (const std::string& row : rows) {
      table += row;
    }
    check_says(std::string("|---|---|---|---|---|\n") + table + "\n");
  }
  CHECK(rows_of<data_out_first>(0).size() == 5);
  CHECK(rows_of<data_out_first>(7).size() == 4);
}

TEST_CASE("docs/flash.md: the pictures are those that the commands write") {
  CHECK(file("flash-33-pages.svg") ==
        gantt(trace_of_33<data_out_first>(),
              {.title = "33 pages, data-outs first", .groups = {"channel 0", "channel 1"}}));
  CHECK(file("flash-33-pages-command-first.svg") ==
        gantt(trace_of_33<command_first>(),
              {.title = "33 pages, commands first", .groups = {"channel 0"}}));
}

TEST_CASE("docs/flash.md: what examples/flash_options.cpp prints") {
  check_says(std::string("```\n") + examples::option_costs::tables() + "```\n");
}

}  // namespace instinfer::test_worked_example
