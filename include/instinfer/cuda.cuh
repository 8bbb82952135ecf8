#pragma once
// All of instinfer that needs the CUDA Toolkit, sm_80 or later. Compile with
// nvcc -std=c++20 --expt-relaxed-constexpr.

#include "instinfer/cuda/engine/engine.cuh"
#include "instinfer/cuda/launch/attend.cuh"
#include "instinfer/cuda/launch/merge.cuh"
#include "instinfer/cuda/launch/sparse.cuh"
