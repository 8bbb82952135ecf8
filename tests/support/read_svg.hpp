#pragma once
// Reads an SVG: a strict reader of XML without declarations, comments and CDATA, which gives the
// elements in order. Throws std::runtime_error where a reader of XML would refuse the text.

#include <cctype>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace instinfer::test {

struct svg_element {
  std::string name;
  std::map<std::string, std::string> attributes;
  std::string text;  // directly inside

  double number(const std::string& attribute) const { return std::stod(attributes.at(attribute)); }
};

class svg_reader {
 public:
  static std::vector<svg_element> read(std::string_view text) {
    svg_reader reader{text};
    reader.element();
    reader.blanks();
    reader.expect(reader.at_ == text.size(), "one root element");
    reader.expect(reader.elements_.front().name == "svg", "svg at the root");
    return reader.elements_;
  }

 private:
  explicit svg_reader(std::string_view text) : text_{text} {}

  void expect(bool ok, const std::string& what) const {
    if (!ok) {
      throw std::runtime_error(std::string("svg: expected ") + what + " at character " +
                               std::to_string(at_));
    }
  }
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }
  void take(char c) {
    expect(peek() == c, std::string(1, c));
    ++at_;
  }
  void blanks() {
    while (std::isspace(static_cast<unsigned char>(peek())) != 0) {
      ++at_;
    }
  }
  std::string name() {
    const std::size_t begin = at_;
    while (std::isalnum(static_cast<unsigned char>(peek())) != 0 || peek() == '-' ||
           peek() == ':') {
      ++at_;
    }
    expect(at_ > begin, "a name");
    return std::string(text_.substr(begin, at_ - begin));
  }
  // Up to `end`, which is not taken.
  std::string characters(char end) {
    std::string out;
    for (; peek() != end; ++at_) {
      expect(peek() != '\0' && peek() != '<', "no raw < and an end");
      if (peek() != '&') {
        out += peek();
        continue;
      }
      const std::size_t semicolon = text_.find(';', at_);
      expect(semicolon != std::string_view::npos, "; after &");
      const std::string_view entity = text_.substr(at_ + 1, semicolon - at_ - 1);
      expect(entity == "lt" || entity == "gt" || entity == "amp", "a known entity");
      out += entity == "lt" ? '<' : entity == "gt" ? '>' : '&';
      at_ = semicolon;
    }
    return out;
  }
  void element() {
    take('<');
    const std::size_t number = elements_.size();
    elements_.push_back({name(), {}, {}});
    for (blanks(); peek() != '>' && peek() != '/'; blanks()) {
      const std::string attribute = name();
      take('=');
      take('"');
      const bool fresh = elements_[number].attributes.emplace(attribute, characters('"')).second;
      expect(fresh, "each attribute once");
      take('"');
    }
    if (peek() == '/') {
      ++at_;
      return take('>');
    }
    take('>');
    while (peek() != '<' || peek(1) != '/') {
      if (peek() == '<') {
        element();
      } else {
        elements_[number].text += characters('<');
      }
    }
    at_ += 2;
    expect(name() == elements_[number].name, std::string("the end of ") + elements_[number].name);
    take('>');
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<svg_element> elements_;
};

// The elements of one name.
inline std::vector<svg_element> read_svg(std::string_view text, std::string_view name) {
  std::vector<svg_element> all = svg_reader::read(text);
  std::erase_if(all, [&](const svg_element& e) { return e.name != name; });
  return all;
}

}  // namespace instinfer::test
