// The designs that attend to all tokens, on the reference and the CPU path.

#include "suite.hpp"

using namespace instinfer;

TEST_CASE_TEMPLATE("insta on the reference and the CPU path", E, fp32, fp16, bf16) {
  test::run_suite<insta, kv_format<E, 64>>();
}

TEST_CASE_TEMPLATE("flexgen on the reference and the CPU path", E, fp32, fp16, bf16) {
  test::run_suite<flexgen, kv_format<E, 64>>();
}
