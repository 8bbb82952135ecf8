#pragma once
// InstInfer Fig. 13 without its models and tasks: what selection methods lose of attention on the
// committed trace.

#include <string>
#include <vector>

namespace instinfer::paper {

// Means over layers and queries; compression: of K and V that a query attends to.
struct accuracy {
  std::string workload;
  std::string method;
  double compression = 1;
  double rel_error = 0;  // |out - exact| / |exact|
  double mass = 0;       // exact weight of the tokens whose V was attended
};

// - trace: SmolLM2-135M's decode at 4096 tokens: SparF, SparQ, H2O, StreamingLLM and a window of
//   the newest tokens at 1/2, 1/4, 1/8 and 1/16
// - switching: SparF and H2O at 1/8 on synthetic queries, every fourth of an earlier passage
// A few seconds.
std::vector<accuracy> measure_accuracy();

}  // namespace instinfer::paper
