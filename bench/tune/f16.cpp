#include "formats.hpp"
#include "measure.hpp"

namespace instinfer::bench {

template <>
std::vector<measured> measure<tuned_f16>() {
  return measure_all<tuned_f16>();
}

}  // namespace instinfer::bench
