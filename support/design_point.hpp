#pragma once
// One design point with every choice at run time, and what its decode step costs on the modelled
// drive.

#include <cstdint>
#include <string>
#include <vector>

#include "instinfer/flash/engine.hpp"
#include "instinfer/ssd/report/chrome_trace.hpp"

namespace instinfer::examples {

// Numbers are double so that one kind of range serves all; for a number of the drive, 0 means the
// preset's. Heads have 128 dims of fp16.
struct design_point {
  std::string drive = "instcsd";  // preset (ssd/spec/presets.hpp)
  double channels = 0;
  double chips = 0;  // per channel
  double dies = 0;   // per chip
  double planes = 0;
  double page_kib = 0;  // 4, 8, 16; blocks are fewer as pages are larger
  double codeword_kib = 0;
  double bus_gb_s = 0;  // of one channel
  double tr_us = 0;     // array read
  // Of the accelerator: the preset's, or `scaled`: as many as the flash and the group ask for.
  std::string units = "preset";
  double heads_at_once = 0;  // in work in the accelerator; 0: all

  std::string arbitration = "data_out_first";  // command_first
  std::string cache_read = "no";               // yes: a die reads while its last page leaves
  std::string pairing = "same_row";  // any: planes read independently, as in whole systems
  std::string transfer = "page";     // codeword: only those with wanted entries cross the bus

  // in_storage: attention in the drive; host_bounce, gpu_direct, peer_to_peer: pages to the GPU.
  std::string route = "in_storage";
  std::string layout = "dual";      // token_indexed, dual, dim_indexed
  double dims = 0;                  // of a dim-indexed page: 2, 4, 8; 0: by context
  std::string attention = "sparf";  // dense, sparf, sparq
  double compression = 8;           // of K and V traffic; dense has 1

  double context = 2048;  // tokens in the cache of each sequence
  double batch = 8;       // sequences
  double heads = 40;      // KV heads
  double group = 1;       // query heads per KV head
  double layers = 40;     // they share the drive's room, and a step goes through all of them
};

// Makes choices that mean the same equal: dense attention has compression 1, a layout without
// dim-indexed pages no dims, a route to the GPU no accelerator, and numbers of the drive are filled
// in from the preset. Throws bad_argument that names the parameter.
design_point resolved(design_point point);

// The drive of a resolved point. Throws bad_argument that names the parameter.
flash::drive_spec drive_of(const design_point& point);

struct step_cost {
  flash::drive_spec drive;
  flash::receipt prompt;  // writing the context of one sequence in one layer
  flash::receipt step;    // one layer's attention for the batch; traffic: the batch's
  // Of a step in one layer, at the rates of ssd/report/energy.hpp, without softmax.
  double energy_j = 0;
};

// One layer is modelled, as all layers are alike; it has its share of the drive's room. Selections
// are random, nothing is computed (flash/random_selection.hpp). Bars of the step go to `trace` if
// there is one. Throws what the engine throws: drive_full for a cache that does not fit,
// bad_argument for a drive that cannot be.
step_cost cost_of(const design_point& resolved, flash::chrome_trace* trace = nullptr);

// The presets by name, then the drives that were added.
std::vector<std::string> drive_names();

// From now on, `name` means this drive, for example that of a drive file. Not while other threads
// use design points. Throws bad_argument for a drive that cannot be.
void add_drive(const std::string& name, const flash::drive_spec& drive);

}  // namespace instinfer::examples
