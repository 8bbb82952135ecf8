#include "formats.hpp"
#include "measure.hpp"

namespace instinfer::bench {

template <>
std::vector<measured> measure<tuned_f32>() {
  return measure_all<tuned_f32>();
}

}  // namespace instinfer::bench
