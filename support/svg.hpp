#pragma once
// The library's drawing, under the name that figures use.

#include "instinfer/ssd/report/svg.hpp"

namespace instinfer::svg {

using flash::drawing;
using flash::marker;

}  // namespace instinfer::svg
