#include "methods/comparison.hpp"

void instinfer::methods::compare_head_128(const decode_case& c, std::vector<measurement>& results) {
  comparison<128>(c, results).run();
}
