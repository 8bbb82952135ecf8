#include "methods/comparison.hpp"

void instinfer::methods::compare_head_64(const decode_case& c, std::vector<measurement>& results) {
  comparison<64>(c, results).run();
}
void instinfer::methods::compare_sparf(const decode_case& c, std::vector<measurement>& results) {
  comparison<64>(c, results).run_sparf();
}
