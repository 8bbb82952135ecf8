#pragma once
// Umbrella header of everything that needs only the standard library: designs, layouts, stores,
// routes and the flash path.
// The compute paths are in instinfer/reference.hpp (Eigen) and instinfer/cpu.hpp (Highway).

#include "instinfer/codec/int4_groups.hpp"
#include "instinfer/codec/scaled_pages.hpp"
#include "instinfer/engine/design.hpp"
#include "instinfer/flash/engine.hpp"
#include "instinfer/layout/dim_indexed.hpp"
#include "instinfer/layout/fused.hpp"
#include "instinfer/transfer/peer_to_peer.hpp"
