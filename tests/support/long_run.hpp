#pragma once
// INSTINFER_LONG=SEED asks tests for all of their cases, of which they run a part otherwise.

#include <cstdlib>

namespace instinfer::test {

inline bool is_long() { return std::getenv("INSTINFER_LONG") != nullptr; }
inline unsigned seed_of_run() {
  const char* given = std::getenv("INSTINFER_LONG");
  return given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : 1;
}

}  // namespace instinfer::test
