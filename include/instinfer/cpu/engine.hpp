#pragma once
// The engine of the CPU path.

#include "instinfer/cpu/path.hpp"
#include "instinfer/engine/engine.hpp"

namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

// T: the kernels' choices for a processor (cpu/tuning-inl.hpp).
template <Design D, class Format = kv_format<>, tuning T = tuning{}, class Store = store::memory>
using engine = instinfer::engine<D, Format, tuned_path<T>, Store>;

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
