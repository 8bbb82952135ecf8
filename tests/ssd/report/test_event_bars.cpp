// A batch's events as bars.

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "instinfer/ssd/channel/timeline.hpp"
#include "instinfer/ssd/report/chrome_trace.hpp"
#include "instinfer/ssd/report/event_bars.hpp"
#include "instinfer/ssd/spec/placement.hpp"

namespace instinfer::test_event_bars {

using namespace flash;

TEST_CASE("event bars: times are those of the timeline, from the batch's begin on") {
  const geometry g{.channels = 2, .chips = 2, .blocks = 4, .pages = 4};
  const timing t{.read_ps = 45 * ps_per_us,
                 .program_ps = 450 * ps_per_us,
                 .erase_ps = 3'500 * ps_per_us,
                 .bus_bytes_per_s = 1'400'000'000};
  timeline<> flash(g, t);
  const placement where{g};
  std::vector<location> pages;
  for (std::int64_t n = 0; n < 7; ++n) {
    pages.push_back(where.striped(n));
  }
  std::vector<std::int64_t> finish(pages.size());
  chrome_trace trace;
  const event_bars bars_from_10us(trace, flash.scale().ticks_per_ps, 10e6);
  const batch_times times = flash.read(pages, finish, bars_from_10us);
  std::vector<double> ends_ps;
  double last_ps = 0;
  for (const chrome_trace::bar& bar : trace.bars()) {
    last_ps = std::max(last_ps, bar.end_ps());
    const std::string& row = trace.rows()[bar.row].row;
    CHECK((row == "bus") == (bar.name != "array read"));
    if (bar.name == "data out") {
      ends_ps.push_back(bar.end_ps() - 10e6);
    }
  }
  std::ranges::sort(ends_ps);
  std::ranges::sort(finish);
  REQUIRE(ends_ps.size() == finish.size());
  for (std::size_t i = 0; i < finish.size(); ++i) {
    CHECK(ends_ps[i] == doctest::Approx(static_cast<double>(finish[i]) /
                                        static_cast<double>(times.ticks_per_ps)));
  }
  CHECK(last_ps == doctest::Approx(static_cast<double>(times.makespan_ps()) + 10e6));
}

}  // namespace instinfer::test_event_bars
