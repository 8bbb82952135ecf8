#pragma once
// Umbrella header of the reference path (fp64; needs Eigen).

#include "instinfer/engine/layered_engine.hpp"
#include "instinfer/instinfer.hpp"
#include "instinfer/reference/engine.hpp"
#include "instinfer/reference/exact.hpp"
