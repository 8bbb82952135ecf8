#pragma once
// The engine of the CPU path.

#include "instinfer/cpu/path.hpp"
#include "instinfer/engine/engine.hpp"

namespace instinfer::cpu {
inline namespace HWY_NAMESPACE {

template <Design D, class Format = kv_format<>, class Store = store::memory>
using engine = instinfer::engine<D, Format, path, Store>;

}  // namespace HWY_NAMESPACE
}  // namespace instinfer::cpu
