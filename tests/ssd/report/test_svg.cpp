// The drawing under the Gantt chart.

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "instinfer/ssd/report/svg.hpp"
#include "tests/support/read_svg.hpp"

namespace instinfer::test_svg {

using namespace flash;

TEST_CASE("drawing: what is drawn reads back, text with every special character") {
  drawing figure(100, 50.5);
  figure.text(1, 2, "a <b> & \"c\"\n", "end", 9, "font-weight=\"bold\"");
  figure.path({{0, 0}, {1.5, -2.25}}, "stroke:#222");
  figure.line(0, 1, 2, 3);
  for (const marker m : {marker::circle, marker::square, marker::triangle, marker::cross}) {
    figure.mark(10, 10, m, "black");
  }
  const std::string svg = figure.svg();
  const auto root = test::read_svg(svg, "svg");
  REQUIRE(root.size() == 1);
  CHECK(root[0].attributes.at("viewBox") == "0 0 100 50.5");
  const auto words = test::read_svg(svg, "text");
  REQUIRE(words.size() == 1);
  CHECK(words[0].text == "a <b> & \"c\" ");
  const auto lines = test::read_svg(svg, "polyline");
  REQUIRE(lines.size() == 3);
  CHECK(lines[0].attributes.at("points") == "0,0 1.5,-2.25");
  // The cross: both diagonals of the square of 10 pixels around its point.
  CHECK(lines[1].attributes.at("points") == "5,5 15,15");
  CHECK(lines[2].attributes.at("points") == "5,15 15,5");
  // The reader is strict itself.
  for (const char* broken : {"<svg>", "<svg></sv>", "<svg a=1/>", "<svg/><svg/>", "<svg>&x;</svg>",
                             "<svg><a></svg></a>", "<svg a=\"1\" a=\"2\"/>"}) {
    CHECK_THROWS_AS(test::svg_reader::read(broken), std::runtime_error);
  }
}

}  // namespace instinfer::test_svg
