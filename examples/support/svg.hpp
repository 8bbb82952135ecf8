#pragma once
// A drawing in SVG: lines, boxes, markers and text, in pixels from the top left corner.

#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace instinfer::svg {

enum class marker { circle, square, triangle, cross };

class drawing {
 public:
  drawing(double width, double height) : width_{width}, height_{height} {}

  void line(double x1, double y1, double x2, double y2,
            const char* style = "stroke:#888;stroke-width:1") {
    body_ += fmt::format(
        "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" style=\"{}\"/>\n", x1, y1,
        x2, y2, style);
  }
  void box(double x, double y, double width, double height, const std::string& style) {
    body_ += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" style=\"{}\"/>\n", x, y,
        width, height, style);
  }
  // anchor: start, middle or end of the text lies at x.
  void text(double x, double y, const std::string& text, const char* anchor = "start",
            int size = 13, const char* extra = "") {
    body_ += fmt::format(
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" font-size=\"{}\" {}>{}</text>\n", x, y,
        anchor, size, extra, escaped(text));
  }
  void path(const std::vector<std::pair<double, double>>& points, const char* style) {
    body_ += "<polyline fill=\"none\" points=\"";
    for (const auto& [x, y] : points) {
      body_ += fmt::format("{:.1f},{:.1f} ", x, y);
    }
    body_ += fmt::format("\" style=\"{}\"/>\n", style);
  }
  void mark(double x, double y, marker m, const char* colour) {
    switch (m) {
      case marker::circle:
        body_ += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\" fill=\"{}\"/>\n", x, y,
                             colour);
        break;
      case marker::square:
        box(x - 5, y - 5, 10, 10, fmt::format("fill:white;stroke:{};stroke-width:2", colour));
        break;
      case marker::triangle:
        body_ += fmt::format("<path d=\"M{:.1f} {:.1f} l6 10 l-12 0 z\" fill=\"{}\"/>\n", x, y - 6,
                             colour);
        break;
      case marker::cross:
        path({{x - 5, y - 5}, {x + 5, y + 5}}, "stroke:black;stroke-width:2");
        path({{x - 5, y + 5}, {x + 5, y - 5}}, "stroke:black;stroke-width:2");
        break;
    }
  }

  void write(std::ostream& out) const {
    out << fmt::format(
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
               "font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
               width_, height_)
        << body_ << "</svg>\n";
  }

 private:
  static std::string escaped(const std::string& text) {
    std::string safe;
    for (const char c : text) {
      safe += c == '<' ? "&lt;" : c == '&' ? "&amp;" : std::string(1, c);
    }
    return safe;
  }

  double width_;
  double height_;
  std::string body_;
};

}  // namespace instinfer::svg
