#pragma once
// A drawing in SVG: lines, boxes, markers, text and hatchings, in pixels from the top left corner.

#include <charconv>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace instinfer::flash {

enum class marker { circle, square, triangle, cross };

// Styles are CSS declarations, e.g. "stroke:#888;stroke-width:1", and are written as they are; text
// is escaped.
class drawing {
 public:
  drawing(double width, double height) : width_{width}, height_{height} {}

  void line(double x1, double y1, double x2, double y2,
            std::string_view style = "stroke:#888;stroke-width:1") {
    begin("line").number("x1", x1).number("y1", y1).number("x2", x2).number("y2", y2);
    attribute("style", style).end();
  }
  void box(double x, double y, double width, double height, std::string_view style) {
    begin("rect").number("x", x).number("y", y).number("width", width).number("height", height);
    attribute("style", style).end();
  }
  // anchor: which point of the text is at x: start, middle or end. extra: further attributes,
  // written unchanged.
  void text(double x, double y, std::string_view text, std::string_view anchor = "start",
            int size = 13, std::string_view extra = "") {
    begin("text").number("x", x).number("y", y).attribute("text-anchor", anchor);
    attribute("font-size", std::to_string(size));
    ((body_ += ' ') += extra) += '>';
    (body_ += escaped(text)) += "</text>\n";
  }
  void path(const std::vector<std::pair<double, double>>& points, std::string_view style) {
    begin("polyline").attribute("fill", "none");
    std::string list;
    for (const auto& [x, y] : points) {
      list.append(list.empty() ? "" : " ").append(digits(x)).append(",").append(digits(y));
    }
    attribute("points", list).attribute("style", style).end();
  }
  void mark(double x, double y, marker m, std::string_view colour) {
    const std::string outline = std::string("fill:white;stroke-width:2;stroke:").append(colour);
    switch (m) {
      case marker::circle:
        begin("circle").number("cx", x).number("cy", y).number("r", 5);
        attribute("fill", colour).end();
        break;
      case marker::square:
        box(x - 5, y - 5, 10, 10, outline);
        break;
      case marker::triangle: {
        const std::string top = digits(x) + ' ' + digits(y - 6);
        begin("path").attribute("d", std::string("M") + top + " l6 10 l-12 0 z");
        attribute("fill", colour).end();
        break;
      }
      case marker::cross:
        path({{x - 5, y - 5}, {x + 5, y + 5}}, "stroke:black;stroke-width:2");
        path({{x - 5, y + 5}, {x + 5, y - 5}}, "stroke:black;stroke-width:2");
        break;
    }
  }

  // A pattern of size x size pixels on white; use it as fill:url(#name). strokes: the `d` of a
  // path.
  void hatching(const std::string& name, int size, const std::string& strokes) {
    const std::string side = std::to_string(size);
    body_ += std::string("<defs><pattern id=\"") + name + "\" width=\"" + side + "\" height=\"" +
             side + "\" patternUnits=\"userSpaceOnUse\"><rect width=\"" + side + "\" height=\"" +
             side + "\" fill=\"white\"/><path d=\"" + strokes +
             "\" stroke=\"#222\" stroke-width=\"1\"/></pattern></defs>\n";
  }

  std::string svg() const {
    const std::string size = std::string("\" width=\"") + digits(width_) + "\" height=\"" +
                             digits(height_) + "\" viewBox=\"0 0 " + digits(width_) + ' ' +
                             digits(height_);
    return std::string("<svg xmlns=\"http://www.w3.org/2000/svg") + size +
           "\" font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n" +
           body_ + "</svg>\n";
  }
  void write(std::ostream& out) const { out << svg(); }

 private:
  drawing& begin(std::string_view element) {
    (body_ += '<') += element;
    return *this;
  }
  drawing& attribute(std::string_view name, std::string_view value) {
    (((body_ += ' ') += name) += "=\"") += value;
    body_ += '"';
    return *this;
  }
  drawing& number(std::string_view name, double value) { return attribute(name, digits(value)); }
  void end() { body_ += "/>\n"; }

  // Two decimals of a pixel, without trailing zeros.
  static std::string digits(double value) {
    char buffer[64];
    const auto last =
        std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed, 2).ptr;
    std::string text(buffer, last);
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') {
      text.pop_back();
    }
    return text == "-0" ? "0" : text;
  }

  static std::string escaped(std::string_view text) {
    std::string safe;
    for (const char c : text) {
      if (c == '<') {
        safe += "&lt;";
      } else if (c == '&') {
        safe += "&amp;";
      } else {
        safe += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;  // not a valid XML character
      }
    }
    return safe;
  }

  double width_;
  double height_;
  std::string body_;
};

}  // namespace instinfer::flash
