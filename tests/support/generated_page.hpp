#pragma once
// A committed page against the one that is generated: the same words, and numbers that may differ
// in their last printed digit.

#include <doctest/doctest.h>

#include <cctype>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

// Text with every number replaced by "#", and the numbers.
struct page_parts {
  std::string text;
  std::vector<double> numbers;

  explicit page_parts(const std::string& from) {
    const auto digit = [&](std::size_t i) {
      return std::isdigit(static_cast<unsigned char>(from[i])) != 0;
    };
    for (std::size_t i = 0; i < from.size();) {
      if (!digit(i)) {
        text += from[i] == '-' ? '+' : from[i];  // an error of 0.0 % may have either sign
        ++i;
        continue;
      }
      std::string digits;
      for (; i < from.size() && (digit(i) || from[i] == ',' || from[i] == '.'); ++i) {
        if (from[i] != ',') {
          digits += from[i];
        }
      }
      numbers.push_back(std::strtod(digits.c_str(), nullptr));
      text += '#';
    }
  }
};

// Whole percents and small counts may round either way, so numbers up to 100 may be off by one in
// the third digit or by 1.
inline void check_page(const char* path, const std::string& generated, const char* command) {
  std::ifstream file(path);
  REQUIRE(file.good());
  std::stringstream committed;
  committed << file.rdbuf();
  const page_parts there(committed.str());
  const page_parts here(generated);
  REQUIRE_MESSAGE(there.text == here.text, command);
  REQUIRE(there.numbers.size() == here.numbers.size());
  for (std::size_t i = 0; i < there.numbers.size(); ++i) {
    CAPTURE(i);
    const double off = std::abs(there.numbers[i] - here.numbers[i]);
    const bool whole = here.numbers[i] == std::floor(here.numbers[i]) && here.numbers[i] <= 100;
    CHECK(off <= (whole ? 1.0 : 0.012 * here.numbers[i]));
  }
}
