#pragma once
// The library's drawing, under the name that figures use.

#include "instinfer/flash/drawing.hpp"

namespace instinfer::svg {

using flash::drawing;
using flash::marker;

}  // namespace instinfer::svg
