#pragma once
// Umbrella header of the CPU path (SIMD; needs Highway).

#include "instinfer/cpu/engine.hpp"
#include "instinfer/engine/layered_engine.hpp"
#include "instinfer/instinfer.hpp"
