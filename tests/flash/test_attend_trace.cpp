// The trace of an attend: every bar in a named row, and nothing overlaps on a bus.

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "tests/support/timed_cache.hpp"

namespace instinfer::test_attend_trace {

using namespace test;

TEST_CASE_TEMPLATE("chrome trace: reads back, every bar in a named row, nothing overlaps on a bus",
                   D, insta, insta_sparf, flexgen, flexgen_sparq) {
  timed_cache<D> cache;
  const sequence seq = cache.filled(1000);
  flash::chrome_trace trace;
  CHECK(trace.empty());
  const flash::receipt done = cache.engine.attend(seq, 0, cache.q, cache.out, &trace);
  CHECK(!trace.empty());
  check_same(done, cache.attend(seq));  // watching changes nothing

  const std::vector<test::trace_bar> bars = bars_of(trace);
  std::map<std::string, int> names;
  std::map<std::pair<std::string, std::string>, std::vector<std::pair<double, double>>> rows;
  double end_us = 0;
  for (const test::trace_bar& bar : bars) {
    CHECK(!bar.group.empty());
    CHECK(!bar.row.empty());
    CHECK(bar.begin_us >= 0);
    CHECK(bar.duration_us >= 0);
    ++names[bar.name];
    rows[{bar.group, bar.row}].push_back({bar.begin_us, bar.begin_us + bar.duration_us});
    end_us = std::max(end_us, bar.begin_us + bar.duration_us);
  }
  const auto pages = static_cast<int>(done.traffic.pages_read);
  CHECK(names["data out"] == pages);
  CHECK(names["array read"] == pages);
  CHECK(names["command"] > 0);
  CHECK(names["command"] <= pages);
  CHECK(names["pages to the GPU"] ==
        (D::transfer_policy::computes_in_drive ? 0 : static_cast<int>(done.phases.size())));
  CHECK(names["entry filter"] == (D::transfer_policy::computes_in_drive ? pages : 0));
  // The units of the drive, by step: only a choice of dims has a first look.
  CHECK((names["Logit-0"] > 0) == std::is_same_v<D, insta_sparf>);
  CHECK((names["Logit"] > 0) == D::transfer_policy::computes_in_drive);
  CHECK((names["Attend"] > 0) == D::transfer_policy::computes_in_drive);
  CHECK(end_us == doctest::Approx(done.total_ns() * 1e-3));
  for (auto& [row, spans] : rows) {
    const std::string where = row.first + ", " + row.second;
    CAPTURE(where);
    std::ranges::sort(spans);
    for (std::size_t i = 1; i < spans.size(); ++i) {
      CHECK(spans[i].first >= spans[i - 1].second - 1e-3);  // to the nanosecond
    }
  }
}

}  // namespace instinfer::test_attend_trace
