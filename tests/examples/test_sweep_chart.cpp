// The data of a sweep's picture: points, lines, names of axes, and what no picture can show.

#include <doctest/doctest.h>

#include "support/sweep_chart.hpp"
#include "tests/charts/same_keys.hpp"

namespace instinfer::test_sweep_chart {

using namespace examples;

TEST_CASE(
    "sweep: the picture's data have a point a value, a line for each other value, and name their axes") {
  row_list rows;
  for (const char* by : {"dense", "sparf"}) {
    for (const int x : {4, 8, 16}) {
      for (const double y : {2.0, 1.0, 5.0}) {
        rows.push_back({{"attention", by}, {"channels", x}, {"step_us", y * x}});
      }
    }
  }
  rows.push_back({{"attention", "sparq"}, {"channels", 4}, {"step_us", nullptr}});  // skipped
  const chart_choice choice{.x = "channels",
                            .y = "step_us",
                            .by = "attention",
                            .x_label = "flash channels",
                            .y_label = "step (\u00b5s)",
                            .by_label = "attention"};
  const nlohmann::ordered_json chart = sweep_chart(rows, choice);
  check_same_keys("sweep", chart);
  CHECK(chart["kind"] == "sweep");
  CHECK(chart["x_label"] == "flash channels");
  CHECK(chart["y_label"] == "step (\u00b5s)");
  CHECK(chart["by_label"] == "attention");
  REQUIRE(chart["lines"].size() == 2);  // none of what was skipped
  CHECK(chart["lines"][0]["name"] == "dense");
  CHECK(chart["lines"][1]["name"] == "sparf");
  for (const auto& line : chart["lines"]) {
    REQUIRE(line["points"].size() == 3);
    for (std::size_t i = 0; i < 3; ++i) {
      const int x = 4 << i;
      const auto& point = line["points"][i];
      CHECK(point["x"] == x);
      CHECK(point["median"] == 2.0 * x);
      CHECK(point["least"] == 1.0 * x);
      CHECK(point["greatest"] == 5.0 * x);
    }
  }

  // Of two values the median is half-way.
  row_list two(rows.begin(), rows.begin() + 2);
  two[0]["step_us"] = 10;
  two[1]["step_us"] = 20;
  const nlohmann::ordered_json one_line = sweep_chart(two, choice);
  REQUIRE(one_line["lines"].size() == 1);
  REQUIRE(one_line["lines"][0]["points"].size() == 1);
  CHECK(one_line["lines"][0]["points"][0]["median"] == 15.0);

  // Without `by` all rows are one line.
  chart_choice all_together = choice;
  all_together.by.clear();
  const nlohmann::ordered_json together = sweep_chart(rows, all_together);
  REQUIRE(together["lines"].size() == 1);
  CHECK(together["lines"][0]["points"].size() == 3);

  // A further parameter that varies has lines of its own: nothing is mixed into a median.
  row_list mixed;
  for (const char* by : {"dense", "sparf"}) {
    for (const int page : {4, 16}) {
      mixed.push_back(
          {{"attention", by}, {"channels", 8}, {"page_kib", page}, {"step_us", 10 * page}});
    }
  }
  chart_choice with_others = choice;
  with_others.others = {"page_kib"};
  const nlohmann::ordered_json four = sweep_chart(mixed, with_others);
  REQUIRE(four["lines"].size() == 4);
  CHECK(four["lines"][0]["name"] == "dense, page_kib 4");
  CHECK(four["lines"][3]["name"] == "sparf, page_kib 16");
  CHECK(four["lines"][3]["points"][0]["least"] == 160);
  CHECK(four["lines"][3]["points"][0]["greatest"] == 160);
  for (int page = 1; page <= 5; ++page) {
    mixed.push_back({{"attention", "a"}, {"channels", 8}, {"page_kib", page}, {"step_us", 1}});
  }
  CHECK_THROWS_WITH_AS(
      (sweep_chart(mixed, with_others)),
      doctest::Contains("attention x page_kib has 9 values, of which a picture shows at most 8"),
      bad_argument);

  CHECK_THROWS_WITH_AS((sweep_chart({rows.back()}, choice)), "chart: no point has a result",
                       bad_argument);
  row_list many;
  for (int by = 0; by < 9; ++by) {
    many.push_back({{"attention", by}, {"channels", 4}, {"step_us", 1}});
  }
  CHECK_THROWS_WITH_AS(
      (sweep_chart(many, choice)),
      doctest::Contains("attention has 9 values, of which a picture shows at most 8"),
      bad_argument);
  row_list far;
  for (int x = 0; x < 201; ++x) {
    far.push_back({{"attention", "dense"}, {"channels", x}, {"step_us", 1}});
  }
  CHECK_THROWS_WITH_AS(
      (sweep_chart(far, choice)),
      doctest::Contains("channels has 201 values, of which a picture shows at most 200"),
      bad_argument);
}

}  // namespace instinfer::test_sweep_chart
