#pragma once
// Pages that are written as text with gaps: {{name}} is replaced by a value that a program
// computes.

#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <string_view>

#include "instinfer/core/errors.hpp"

namespace instinfer::page {

using values = std::map<std::string, std::string>;

// Throws bad_argument for a gap without an end, and for a name without a value.
inline std::string filled(std::string_view text, const values& by_name) {
  std::string page;
  for (;;) {
    const std::size_t begin = text.find("{{");
    page += text.substr(0, begin);
    if (begin == std::string_view::npos) {
      return page;
    }
    const std::size_t end = text.find("}}", begin);
    require(end != std::string_view::npos, [&] {
      return "page template: {{ without }} at \"" + std::string(text.substr(begin, 40)) + "\"";
    });
    const std::string name(text.substr(begin + 2, end - begin - 2));
    const auto value = by_name.find(name);
    require(value != by_name.end(),
            [&] { return "page template: there is no value for {{" + name + "}}"; });
    page += value->second;
    text.remove_prefix(end + 2);
  }
}

// Throws bad_file where it cannot be read.
inline std::string text_of(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  require<bad_file>(in.good(), [&] { return file + ": cannot be read"; });
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace instinfer::page
