#pragma once
// Umbrella header of engines over many drives, each a rank of MPI. It needs an MPI library.

#include "instinfer/cluster/engine.hpp"
#include "instinfer/instinfer.hpp"
