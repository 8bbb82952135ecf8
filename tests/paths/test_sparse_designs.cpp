// The designs that select tokens by some dims of the query, on the reference and the CPU path.

#include "suite.hpp"

using namespace instinfer;

TEST_CASE_TEMPLATE("insta_sparf on the reference and the CPU path", E, fp32, fp16, bf16) {
  test::run_suite<insta_sparf, kv_format<E, 64>>();
}

TEST_CASE_TEMPLATE("flexgen_sparq on the reference and the CPU path", E, fp32, fp16, bf16) {
  test::run_suite<flexgen_sparq, kv_format<E, 64>>();
}
