#include "formats.hpp"
#include "measure.hpp"

namespace instinfer::bench {

template <>
std::vector<measured> measure<tuned_i8>() {
  return measure_all<tuned_i8>();
}

}  // namespace instinfer::bench
