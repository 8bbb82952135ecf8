#pragma once
// Reads back what flash::chrome_trace writes: one JSON object, one event a line, every event's
// values plain strings or numbers. Anything else throws, so that a reader of the Chrome trace
// format would not choke on it first.

#include <cctype>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace instinfer::test {

struct trace_bar {
  std::string group;
  std::string row;
  std::string name;
  double begin_us = 0;
  double duration_us = 0;
};

// A recursive descent over JSON that keeps nothing: throws std::runtime_error where the text is not
// one JSON value.
class json_check {
 public:
  static void one_value(std::string_view text) {
    json_check check{text};
    check.value();
    check.expect(check.next() == '\0' && check.at_ == text.size(), "the end");
  }

 private:
  explicit json_check(std::string_view text) : text_{text} {}

  char next() {  // the next character that is no blank; '\0' at the end
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) {
      ++at_;
    }
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  void expect(bool ok, const char* what) const {
    if (!ok) {
      throw std::runtime_error("trace: expected " + std::string(what) + " at character " +
                               std::to_string(at_));
    }
  }
  void take(char c) {
    expect(next() == c, std::string{c}.c_str());
    ++at_;
  }
  void string() {
    take('"');
    while (at_ < text_.size() && text_[at_] != '"') {
      expect(static_cast<unsigned char>(text_[at_]) >= 0x20, "a printable character");
      at_ += text_[at_] == '\\' ? 2 : 1;
    }
    take('"');
  }
  void number() {
    const std::size_t begin = at_;
    while (at_ < text_.size() &&
           std::string_view("+-.0123456789eE").find(text_[at_]) != std::string_view::npos) {
      ++at_;
    }
    std::size_t used = 0;
    const std::string digits(text_.substr(begin, at_ - begin));
    (void)std::stod(digits, &used);
    expect(used == digits.size(), "a number");
  }
  void value() {
    switch (next()) {
      case '{':
        return list('{', '}', true);
      case '[':
        return list('[', ']', false);
      case '"':
        return string();
      default:
        expect(next() == '-' || std::isdigit(static_cast<unsigned char>(next())) != 0, "a value");
        return number();
    }
  }
  void list(char open, char close, bool keys) {
    take(open);
    for (bool more = next() != close; more; more = next() == ',') {
      if (text_[at_] == ',') {
        ++at_;
      }
      if (keys) {
        next();
        string();
        take(':');
      }
      value();
    }
    take(close);
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

// The bars of a written trace, with the names of their groups and rows; throws where one has none.
inline std::vector<trace_bar> read_bars(const std::string& text) {
  json_check::one_value(text);
  // The value of the first such key from `from` on, a string without its escapes.
  const auto field = [](const std::string& line, const std::string& key, std::size_t from = 0) {
    const std::size_t at = line.find("\"" + key + "\":", from);
    if (at == std::string::npos) {
      throw std::runtime_error("trace: no " + key + " in " + line);
    }
    std::size_t i = at + key.size() + 3;
    std::string value;
    if (line[i] == '"') {
      for (++i; line[i] != '"'; ++i) {
        i += line[i] == '\\' ? 1 : 0;
        value += line[i];
      }
      return value;
    }
    return line.substr(i, line.find_first_of(",}", i) - i);
  };
  const auto name_argument = [&](const std::string& line) {
    return field(line, "name", line.find("\"args\":{"));
  };
  std::map<std::string, std::string> groups;                        // by pid
  std::map<std::pair<std::string, std::string>, std::string> rows;  // by pid and tid
  std::vector<std::pair<trace_bar, std::pair<std::string, std::string>>> bars;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.find("\"ph\":\"M\"") != std::string::npos) {
      const std::string what = field(line, "name");
      const std::string pid = field(line, "pid");
      if (what == "process_name") {
        groups[pid] = name_argument(line);
      } else if (what == "thread_name") {
        rows[{pid, field(line, "tid")}] = name_argument(line);
      }
    } else if (line.find("\"ph\":\"X\"") != std::string::npos) {
      bars.push_back({{.group = {},
                       .row = {},
                       .name = field(line, "name"),
                       .begin_us = std::stod(field(line, "ts")),
                       .duration_us = std::stod(field(line, "dur"))},
                      {field(line, "pid"), field(line, "tid")}});
    }
  }
  std::vector<trace_bar> named;
  for (auto& [bar, key] : bars) {
    bar.group = groups.at(key.first);
    bar.row = rows.at(key);
    named.push_back(bar);
  }
  return named;
}

}  // namespace instinfer::test
