#pragma once
// What a fuzz target has for its main program (support/fuzz_main.cpp), beside libFuzzer's entry.

#include <string>
#include <string_view>
#include <vector>

namespace instinfer::test {

// Whether the target takes the input; it aborts where something is wrong with itself.
bool fuzz_one(std::string_view input);
// Inputs that it takes.
std::vector<std::string> fuzz_seeds();

}  // namespace instinfer::test
