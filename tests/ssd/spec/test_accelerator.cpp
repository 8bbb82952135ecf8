// The accelerator's units: Table I, and whether they keep up with the flash.

#include <doctest/doctest.h>

#include <limits>

#include "instinfer/ssd/spec/accelerator.hpp"
#include "instinfer/ssd/spec/presets.hpp"

namespace instinfer::test_accelerator {

TEST_CASE("accelerator: Table I, one head and 16 tokens") {
  const flash::accelerator_spec& units = flash::instcsd.units;
  flash::accelerator_spec one_kernel = units;
  one_kernel.attention_kernels = 1;
  CHECK(one_kernel.gemv_ps(16 * 128 * 2) == 322'520);  // 4096 FLOP; the paper prints 0.32 us
  CHECK(units.gemv_ps(16 * 128 * 2) == 161'260);
  CHECK(units.filter_ps(4096) == 2'214'055);
  CHECK(units.top_k_ps(285) == 1'000'000);
  CHECK(units.attention_kernels == 2);
  CHECK(units.softmax_units == 22);
}

TEST_CASE("accelerator: softmax and top-k units may be missing, kernels and filters may not") {
  using flash::accelerator_spec;
  const auto with = [](auto accelerator_spec::* field, int value) {
    accelerator_spec units = flash::instcsd.units;
    units.*field = value;
    return units;
  };
  CHECK_NOTHROW(flash::validate(with(&accelerator_spec::top_k_elements_per_s, 0)));
  CHECK_NOTHROW(flash::validate(with(&accelerator_spec::softmax_units, 0)));
  CHECK_NOTHROW(flash::validate(with(&accelerator_spec::softmax_flops_per_s, 0)));
  CHECK_NOTHROW(flash::validate(with(&accelerator_spec::heads_at_once, 0)));
  for (const auto& bad :
       {with(&accelerator_spec::top_k_elements_per_s, -1),
        with(&accelerator_spec::softmax_units, -1),
        with(&accelerator_spec::softmax_flops_per_s, -1),
        with(&accelerator_spec::heads_at_once, -1), with(&accelerator_spec::filter_bytes_per_s, 0),
        with(&accelerator_spec::gemv_flops_per_s, 0),
        with(&accelerator_spec::filter_buffer_pages, 0),
        with(&accelerator_spec::kernel_buffer_pages, 0)}) {
    CHECK_THROWS_AS(flash::validate(bad), instinfer::bad_argument);
  }
}

TEST_CASE("accelerator: keep up with the measured 7.66 GB/s, and one softmax unit fewer does not") {
  flash::accelerator_spec units = flash::instcsd.units;
  const std::int64_t tokens = 7'660'000'000 / 512;  // of one second
  const std::int64_t scores = 7'660'000'000 / 128;  // of the first pass of SparF
  CHECK(units.softmax_ps(scores) <= flash::ps_per_s);
  CHECK(units.gemv_ps(tokens * 512) <= flash::ps_per_s);
  --units.softmax_units;
  CHECK(units.softmax_ps(scores) > flash::ps_per_s);
}

TEST_CASE("work_ps: exact, rounded up, checked") {
  CHECK(flash::work_ps(0, 0) == 0);
  CHECK(flash::work_ps(1, 3) == 333'333'333'334);
  CHECK(flash::work_ps(7, 7) == flash::ps_per_s);
  CHECK(flash::work_ps(1, 9'000'000'000'000'000) == 1);
  CHECK(flash::work_ps(8'999'999'999'999'999, 9'000'000'000'000'000) == flash::ps_per_s);
  CHECK_THROWS_AS((void)flash::work_ps(1, 0), instinfer::bad_argument);
  CHECK_THROWS_AS((void)flash::work_ps(-1, 1), instinfer::bad_argument);
  CHECK_THROWS_AS((void)flash::work_ps(std::numeric_limits<std::int64_t>::max(), 1),
                  instinfer::bad_argument);
  CHECK_THROWS_AS((void)flash::accelerator_spec{}.gemv_ps(1), instinfer::bad_argument);
}

}  // namespace instinfer::test_accelerator
