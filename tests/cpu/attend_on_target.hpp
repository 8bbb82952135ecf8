#pragma once
// What the units of targets.cpp compute, each for the target of its own flags.

#include <string>
#include <vector>

namespace instinfer::test {

struct attended {
  std::string target;               // cpu::target_name()
  std::string path_name;            // of the type cpu::path
  std::string engine_name;          // of the engine's type
  std::vector<float> dense, sparf;  // outputs [q_heads, v_dim]
};

attended attend_baseline(unsigned seed, int tokens);
attended attend_avx2(unsigned seed, int tokens);

}  // namespace instinfer::test
