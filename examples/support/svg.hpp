#pragma once
// A drawing in SVG: lines, boxes, markers and text, in pixels from the top left corner.

#include <cstdio>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

namespace instinfer::svg {

enum class marker { circle, square, triangle, cross };

class drawing {
 public:
  drawing(double width, double height) : width_{width}, height_{height} {}

  void line(double x1, double y1, double x2, double y2,
            const std::string& style = "stroke:#888;stroke-width:1") {
    body_ += "<line x1=" + quoted(x1) + " y1=" + quoted(y1) + " x2=" + quoted(x2) +
             " y2=" + quoted(y2) + " style=\"" + style + "\"/>\n";
  }
  void box(double x, double y, double width, double height, const std::string& style) {
    body_ += "<rect x=" + quoted(x) + " y=" + quoted(y) + " width=" + quoted(width) +
             " height=" + quoted(height) + " style=\"" + style + "\"/>\n";
  }
  // anchor: start, middle or end of the text lies at x.
  void text(double x, double y, const std::string& text, const char* anchor = "start",
            int size = 13, const char* extra = "") {
    body_ += "<text x=" + quoted(x) + " y=" + quoted(y) + " text-anchor=\"" + anchor +
             "\" font-size=\"" + std::to_string(size) + "\" " + extra + ">" + escaped(text) +
             "</text>\n";
  }
  void path(const std::vector<std::pair<double, double>>& points, const std::string& style) {
    body_ += "<polyline fill=\"none\" points=\"";
    for (const auto& [x, y] : points) {
      body_ += number(x) + "," + number(y) + " ";
    }
    body_ += "\" style=\"" + style + "\"/>\n";
  }
  void mark(double x, double y, marker m, const std::string& colour) {
    switch (m) {
      case marker::circle:
        body_ +=
            "<circle cx=" + quoted(x) + " cy=" + quoted(y) + " r=\"5\" fill=\"" + colour + "\"/>\n";
        break;
      case marker::square:
        box(x - 5, y - 5, 10, 10, "fill:white;stroke:" + colour + ";stroke-width:2");
        break;
      case marker::triangle:
        body_ += "<path d=\"M" + number(x) + " " + number(y - 6) + " l6 10 l-12 0 z\" fill=\"" +
                 colour + "\"/>\n";
        break;
      case marker::cross:
        path({{x - 5, y - 5}, {x + 5, y + 5}}, "stroke:black;stroke-width:2");
        path({{x - 5, y + 5}, {x + 5, y - 5}}, "stroke:black;stroke-width:2");
        break;
    }
  }

  // Anything else, such as patterns that a style refers to.
  void raw(const std::string& element) { body_ += element + "\n"; }

  void write(std::ostream& out) const {
    char size[128];
    std::snprintf(size, sizeof size, "width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\"",
                  width_, height_, width_, height_);
    out << "<svg xmlns=\"http://www.w3.org/2000/svg\" " << size
        << " font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        << body_ << "</svg>\n";
  }

 private:
  static std::string number(double x) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f", x);
    return text;
  }
  static std::string quoted(double x) { return "\"" + number(x) + "\""; }

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
