#pragma once
// Umbrella header of the reference path (fp64; needs Eigen).

#include "instinfer/instinfer.hpp"
#include "instinfer/reference/engine.hpp"
#include "instinfer/reference/exact.hpp"
