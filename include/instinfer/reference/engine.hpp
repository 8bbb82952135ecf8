#pragma once
// The engine of the reference path.

#include "instinfer/engine/engine.hpp"
#include "instinfer/reference/path.hpp"

namespace instinfer::reference {

template <Design D, class Format = kv_format<>, class Store = store::memory>
using engine = instinfer::engine<D, Format, path, Store>;

}  // namespace instinfer::reference
