#pragma once
// The attends that many tests share: policies of the named designs on plain pages of head size 64.
// shared_attends_cpu.cpp and shared_attends_reference.cpp compile them once, with optimisation, as
// users build them; the tests that include this header only call them.

#include "instinfer/cpu.hpp"
#include "instinfer/reference.hpp"

namespace instinfer::test {

// As many workers as claimed; the caller's thread does their tasks. Heads are cut for all of them.
inline auto claimed_workers(std::size_t n) {
  return parallel::on_pool(n, [](std::size_t count, auto&& task) {
    for (std::size_t i = 0; i < count; ++i) {
      task(i, 0);
    }
  });
}

// One KV head's attend with a policy's program: the machine and, on the CPU path, the kernels.
template <class Policy, class Format, class Path>
using attend_of =
    head_attend<Policy,
                store::layer_cache<Format, typename Policy::summaries::template states<Format>>,
                typename workspace<Path, Format>::worker>;

}  // namespace instinfer::test

// One line per policy and element type. Templates: `extern template` or `template`.
#define INSTINFER_TEST_ATTEND(Templates, Policy, Element, Path)                       \
  Templates void instinfer::test::attend_of<                                          \
      instinfer::attention::Policy, instinfer::kv_format<instinfer::Element, 64>,     \
      instinfer::Path>::operator()(std::uint32_t, std::span<float>, std::span<float>, \
                                   instinfer::attention::observer_ref) const;
#define INSTINFER_TEST_ATTENDS(Templates, Path)       \
  INSTINFER_TEST_ATTEND(Templates, dense, fp32, Path) \
  INSTINFER_TEST_ATTEND(Templates, dense, fp16, Path) \
  INSTINFER_TEST_ATTEND(Templates, dense, bf16, Path) \
  INSTINFER_TEST_ATTEND(Templates, sparf, fp32, Path) \
  INSTINFER_TEST_ATTEND(Templates, sparf, fp16, Path) \
  INSTINFER_TEST_ATTEND(Templates, sparf, bf16, Path) \
  INSTINFER_TEST_ATTEND(Templates, sparq, fp32, Path) \
  INSTINFER_TEST_ATTEND(Templates, sparq, fp16, Path) \
  INSTINFER_TEST_ATTEND(Templates, sparq, bf16, Path)

// The kernels, for the programs of other policies.
#define INSTINFER_TEST_ARITHMETICS(Templates)                                            \
  Templates class instinfer::cpu::arithmetic<instinfer::kv_format<instinfer::fp32, 64>>; \
  Templates class instinfer::cpu::arithmetic<instinfer::kv_format<instinfer::fp16, 64>>; \
  Templates class instinfer::cpu::arithmetic<instinfer::kv_format<instinfer::bf16, 64>>;

// The check of appended values: a fifth of the time of a test of clusters without optimisation.
#define INSTINFER_TEST_CHECK(Templates, Element)                                               \
  Templates bool instinfer::store::all_storable<instinfer::kv_format<instinfer::Element, 64>>( \
      std::span<const instinfer::Element>);
#define INSTINFER_TEST_CHECKS(Templates) \
  INSTINFER_TEST_CHECK(Templates, fp32)  \
  INSTINFER_TEST_CHECK(Templates, fp16)  \
  INSTINFER_TEST_CHECK(Templates, bf16)

#if !defined(INSTINFER_TEST_COMPILES_ATTENDS)
INSTINFER_TEST_CHECKS(extern template)
INSTINFER_TEST_ARITHMETICS(extern template)
INSTINFER_TEST_ATTENDS(extern template, cpu::path)
INSTINFER_TEST_ATTENDS(extern template, reference::path)
#endif
