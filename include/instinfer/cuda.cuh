#pragma once
// All of instinfer that needs the CUDA Toolkit, sm_80 or later: nvcc -std=c++20 --expt-relaxed-constexpr.

#include "instinfer/cuda/attend.cuh"
#include "instinfer/cuda/engine.cuh"
#include "instinfer/cuda/merge.cuh"
#include "instinfer/cuda/sparse.cuh"
