#pragma once
// Holds the samples that bench/charts is tested with (tests/charts/*.json) to what the programs
// write: the same keys, with values of the same kind.

#include <doctest/doctest.h>

#include <fstream>
#include <map>
#include <string>

#include <nlohmann/json.hpp>

// Paths of all values, like "panels[].systems[].name", and their kinds. Elements of a list add up.
inline void add_keys(const nlohmann::ordered_json& of, const std::string& at,
                     std::map<std::string, std::string>& to) {
  if (of.is_object()) {
    for (const auto& [name, value] : of.items()) {
      add_keys(value, at + "." + name, to);
    }
  } else if (of.is_array()) {
    for (const auto& value : of) {
      add_keys(value, at + "[]", to);
    }
  } else {
    to[at] = of.type_name();
  }
}

inline void check_same_keys(const std::string& sample, const nlohmann::ordered_json& written) {
  const std::string path = std::string(INSTINFER_CHART_SAMPLES) + "/" + sample + ".json";
  std::ifstream file(path);
  REQUIRE_MESSAGE(file.good(), path);
  std::map<std::string, std::string> expected, found;
  add_keys(nlohmann::ordered_json::parse(file), "", expected);
  add_keys(written, "", found);
  for (const auto& of : expected) {
    const std::string& key = of.first;  // clang 14 captures no structured binding
    CAPTURE(key);
    CHECK(found[key] == of.second);
  }
  CHECK(found.size() == expected.size());
}
